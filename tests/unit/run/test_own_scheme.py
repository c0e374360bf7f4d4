"""A cell of a plugin offers its own initial values, and no others."""

from pathlib import Path

import pytest

from harness.errors import MisuseError
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from harness.store import RunFolder
from harness.suite import load_suite
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
        "gradients[0].init: cell 'rnn' has no initial values 'no-recurrence'; it "
        "offers: canonical, zero-bias, chrono, native-torch, native-keras"
    ) in err
    assert "cell 'rnn-forgetful'" not in err


@pytest.mark.parametrize("listed", [True, False])
def test_a_new_cell_is_asked_for_no_scheme_of_the_built_in_cells(
    listed: bool, tmp_path: Path
) -> None:
    new = NewPlugin("cell", "ugrnn", file=tmp_path / "ugrnn.py")
    file = write_plugin(new, helpers.REGISTRY)
    offered = '    inits=["canonical", "chrono"],\n'
    assert offered in file.read_text()
    if not listed:
        helpers.write(file, file.read_text().replace(offered, ""))
    text = helpers.suite(SECTION.format(cells='["ugrnn"]'))
    text = text.replace('"no-recurrence"', '"native-torch"')
    suite = helpers.write(tmp_path / "s.toml", text)
    with pytest.raises(MisuseError) as raised:
        load_suite(str(suite), Registry.discover([file]))
    assert (
        "gradients[0].init: cell 'ugrnn' has no initial values 'native-torch'; it "
        "offers: canonical, chrono"
    ) in str(raised.value)
