"""How much there is: snapshots of the platform's counters."""
