"""What refers to files: the platform's stores, and the columns that name what is in them."""
