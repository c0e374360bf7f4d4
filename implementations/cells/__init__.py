"""Equations, canonical weights, initial values and operation counts of each cell."""
