"""A cell's reference run over sequences: the oracle."""
