"""What `rnn-harness new implementation --framework jax` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template_cases import assert_template_computes

# Its gru is certified whole, see tests/unit/plugins/test_docs_plugins.py.
CELLS = ["rnn-relu", "gru-reset-before", "lstm"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_template_computes_its_cell(cell: str, tmp_path: Path) -> None:
    assert_template_computes("jax", cell, tmp_path)
