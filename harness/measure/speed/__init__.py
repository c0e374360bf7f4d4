"""How fast is it? Phases of a trial, timed in turns."""
