"""The housekeeping of the housekeeping: undo, the trash's expiry, the outbox of files."""
