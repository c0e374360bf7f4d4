"""What every JAX implementation shares, and the layers built upon it."""
