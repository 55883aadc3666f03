"""PostgreSQL itself: engine, catalog, keys, locks, errors, the embedded server. It knows no table of the platform."""
