"""From a suite to the trials that still have to run."""
