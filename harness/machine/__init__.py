"""What is known of this machine, and who measures on it now."""
