"""Every figure of a report, drawn only where it has something to show."""
