"""Sequence problems with a known floor, one a file."""
