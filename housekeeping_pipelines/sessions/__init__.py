"""Upload sessions that are over, and what they left in storage."""
