"""Networks to numbers."""
