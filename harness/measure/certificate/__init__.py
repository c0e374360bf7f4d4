"""Is it the same mathematics? An implementation compared with the reference."""
