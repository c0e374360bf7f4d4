"""Nothing here is collected but where it is asked for by path."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these folders out of the whole suite: one framework a process."""
    asked = (Path(argument.split("::")[0]).resolve() for argument in config.args)
    return None if any(HERE in path.parents for path in asked) else True
