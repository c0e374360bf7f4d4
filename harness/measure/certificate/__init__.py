"""Is it the same mathematics? An implementation against the float64 reference."""
