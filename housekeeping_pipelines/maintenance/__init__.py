"""Housekeeping's own upkeep: undo, the expiry of the trash, the outbox of files."""
