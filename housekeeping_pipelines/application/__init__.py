"""The platform's tables: default names, the mapping to a user's own, sample data."""
