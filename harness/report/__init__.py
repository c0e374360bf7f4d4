"""Figures and pages drawn from the analysis."""
