"""Read, write and replace files that somebody else may have put in the way."""
