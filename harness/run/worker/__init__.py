"""The process that answers measures, and the parent's side of it."""
