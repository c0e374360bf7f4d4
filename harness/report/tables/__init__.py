"""The tables of a report, as text: page, summary and terminal show the same."""
