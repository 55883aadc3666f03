"""Checks of every component."""
