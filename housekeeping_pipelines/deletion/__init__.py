"""The only code that deletes: policy, guards, holds, batches, trash, undo."""
