"""Has it changed? Two runs, key by key."""
