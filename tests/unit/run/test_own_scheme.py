"""A cell of a plugin offers its own initial values, and no others."""

from pathlib import Path

import pytest

from harness.store import RunFolder
from tests import helpers

PLUGIN = helpers.PLUGINS / "own_scheme.py"
SECTION = """\
[[gradients]]
task = "adding"
length = 12
cells = {cells}
init = ["canonical", "no-recurrence"]
hidden_size = 8
seeds = [0]
"""


def call(folder: Path, cells: str) -> tuple[int, str, str]:
    text = helpers.suite(SECTION.format(cells=cells))
    helpers.write(folder / "s.toml", text)
    asked = ("run", "s.toml", "-o", "out", "--plugin", PLUGIN)
    return helpers.run(*asked, cwd=folder)


@pytest.mark.slow
def test_a_scheme_that_a_cell_declares_is_measured(tmp_path: Path) -> None:
    code, out, err = call(tmp_path, '["rnn-forgetful"]')
    assert code == 0, out + err
    horizons = {
        record.trial.init: record.value("initial", "horizon_loss")
        for record in RunFolder.open(tmp_path / "out").records()
    }
    assert horizons["no-recurrence"] == 0 < horizons["canonical"]


def test_a_scheme_that_one_of_the_cells_lacks_is_refused(tmp_path: Path) -> None:
    code, _, err = call(tmp_path, '["rnn-forgetful", "rnn"]')
    assert code == 2
    assert (
        "gradients[0].init: cell 'rnn' has no initial values 'no-recurrence'; known: "
        "canonical, chrono, native-keras, native-torch, zero-bias"
    ) in err
    assert "cell 'rnn-forgetful'" not in err
