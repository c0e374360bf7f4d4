"""How fast is it? The phases of a trial are timed in turns."""
