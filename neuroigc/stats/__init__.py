"""Ceilings and uncertainty."""
