"""The file that `rnn-harness new implementation` writes computes its cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.backends import Backend
from tests.template_cases import assert_template_computes


@pytest.mark.long
def test_the_template_computes_its_cell(
    backend: Backend, template_cell: str, tmp_path: Path
) -> None:
    assert_template_computes(backend.framework, template_cell, tmp_path)
