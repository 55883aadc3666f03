"""One run of one task: its lock, its report, its progress, and the database that it runs on."""
