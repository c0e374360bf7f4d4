"""What was learned, and how the gradient travels back."""
