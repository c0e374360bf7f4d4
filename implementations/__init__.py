"""What is computed, and how: cells and their implementations."""
