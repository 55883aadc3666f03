"""A Dagster code location that keeps a chat-and-document platform clean."""

__version__ = "0.1.0"
