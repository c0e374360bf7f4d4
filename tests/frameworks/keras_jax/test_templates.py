"""What `rnn-harness new implementation --framework keras-jax` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template_cases import assert_template_computes

# The template of tensorflow computes here; its other cells are tested there.
CELLS = ["lstm"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_template_computes_its_cell(cell: str, tmp_path: Path) -> None:
    assert_template_computes("keras-jax", cell, tmp_path)
