"""What the backends of all frameworks share: numpy alone, no framework."""
