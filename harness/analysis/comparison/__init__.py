"""Has it changed? The timings of two runs, one by one."""
