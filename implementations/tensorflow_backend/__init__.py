"""The network of every TensorFlow implementation, and its layers."""
