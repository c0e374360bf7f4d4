"""What is known about this machine, and who measures on it now."""
