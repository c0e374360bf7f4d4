"""The network of every torch implementation, and its layers."""
