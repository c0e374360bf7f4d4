"""What is known about this machine, and the lock that keeps timings apart."""
