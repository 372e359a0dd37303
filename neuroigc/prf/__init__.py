"""Maps to receptive fields."""
