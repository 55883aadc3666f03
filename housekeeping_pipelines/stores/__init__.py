"""The platform's stores, and the columns whose values name their files."""
