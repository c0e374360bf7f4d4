"""The network of every JAX implementation, and its layers."""
