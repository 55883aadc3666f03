"""The one way anything is ever deleted: policy, guards, holds, batches, trash, undo, report."""
