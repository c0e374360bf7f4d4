"""What the backends of all frameworks share; it imports numpy but no framework."""
