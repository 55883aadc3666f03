"""A platform to try the tasks on: realistic rows, files and a web site."""
