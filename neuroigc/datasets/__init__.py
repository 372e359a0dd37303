"""Files to arrays."""
