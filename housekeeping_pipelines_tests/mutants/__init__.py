"""Each decision to keep something, turned into a deletion: a test has to notice."""
