"""Mistakes in the optimiser and loss of a backend are refused with their cause."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frameworks.backends import Backend
from tests.helpers import PLUGINS
from tests.planted import PLANTED, assert_refused


@pytest.mark.long
@pytest.mark.parametrize(("mistake", "rest"), [(m, rest) for m, *rest in PLANTED])
def test_a_planted_mistake_is_refused_with_its_cause(
    backend: Backend, mistake: str, rest: list[Any]
) -> None:
    file = PLUGINS / f"sabotage_{backend.framework}.py"
    assert_refused(file, f"{backend.framework}-{mistake}", *rest)
