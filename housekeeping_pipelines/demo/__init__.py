"""A platform to try things out on: rows, files and a web site that look as if people had used them."""
