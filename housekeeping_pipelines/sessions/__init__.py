"""Expired upload sessions, and their files in storage."""
