"""The oracle: a cell's reference, computed over sequences."""
