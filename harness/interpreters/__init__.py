"""The interpreters of frameworks that have one of their own."""
