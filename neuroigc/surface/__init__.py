"""Numbers to the brain."""
