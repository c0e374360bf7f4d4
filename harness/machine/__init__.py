"""What is known about this machine, and the lock of those who measure on it."""
