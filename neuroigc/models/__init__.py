"""Arrays to networks."""
