"""What `rnn-harness new implementation --framework tensorflow` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template_cases import CELLS, assert_template_computes


@pytest.mark.parametrize("cell", CELLS)
def test_the_template_computes_its_cell(cell: str, tmp_path: Path) -> None:
    assert_template_computes("tensorflow", cell, tmp_path)
