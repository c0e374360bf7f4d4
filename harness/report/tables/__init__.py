"""The tables of a report, as text: page, summary and terminal show the same."""

from harness.report.tables.agreement import agreement_table, parting_table
from harness.report.tables.checks import (
    checks_table,
    environment_table,
    outcome_table,
    parity_table,
)
from harness.report.tables.fastest import fastest_table
from harness.report.tables.first_calls import first_calls_table
from harness.report.tables.form import Block, Row, Table
from harness.report.tables.initial_values import initial_values_table
from harness.report.tables.learning import (
    horizon_table,
    learned_table,
    learning_table,
)
from harness.report.tables.peaks import peaks_table
from harness.report.tables.solve_time import solve_table
from harness.report.tables.speed import (
    latency_table,
    rates_table,
    shaky_table,
    speed_table,
)

__all__ = [
    "Block",
    "Row",
    "Table",
    "agreement_table",
    "checks_table",
    "environment_table",
    "fastest_table",
    "first_calls_table",
    "horizon_table",
    "initial_values_table",
    "latency_table",
    "learned_table",
    "learning_table",
    "outcome_table",
    "parity_table",
    "parting_table",
    "peaks_table",
    "rates_table",
    "shaky_table",
    "solve_table",
    "speed_table",
]
