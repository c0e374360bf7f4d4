"""What every TensorFlow implementation shares, and the layers built upon it."""
