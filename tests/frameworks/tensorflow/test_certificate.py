"""What is planted in the TensorFlow backend's optimiser and loss is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.planted import PLANTED, assert_refused

SABOTAGE = Path(__file__).parents[2] / "fake_plugins" / "sabotage_tensorflow.py"


@pytest.mark.parametrize(("mistake", "rest"), [(m, rest) for m, *rest in PLANTED])
def test_a_planted_mistake_is_refused_and_told(mistake: str, rest: list[Any]) -> None:
    assert_refused(SABOTAGE, f"tensorflow-{mistake}", *rest)
