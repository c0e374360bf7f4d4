"""Messages between two processes, of which one may run code of a plugin."""
