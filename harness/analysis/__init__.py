"""From results to tables and statistics."""
