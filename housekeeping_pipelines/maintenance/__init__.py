"""The housekeeping of the housekeeping: undo and the trash's expiry."""
