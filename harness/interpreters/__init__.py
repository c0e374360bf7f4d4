"""A Python of its own for a framework."""
