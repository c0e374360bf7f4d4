"""What every torch implementation shares, and the layers built upon it."""
