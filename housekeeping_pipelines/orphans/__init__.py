"""Files and objects that nothing refers to."""
