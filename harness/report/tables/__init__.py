"""The tables of a report as text, for the page, summary.md and the terminal."""
