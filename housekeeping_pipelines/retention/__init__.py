"""Rows that are too old: conversations, messages, users, and what a user's own rules say."""
