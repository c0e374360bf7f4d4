"""What trials will cost in time, memory and disk."""
