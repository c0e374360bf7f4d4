"""One module a question asked of a network."""
