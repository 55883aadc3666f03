"""What every capability's Dagster definitions share."""
