"""From a suite to results: planning, workers, outcomes."""
