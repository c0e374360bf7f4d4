"""A cell that breaks its contract is neither certified nor measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import PluginError
from harness.measure.subject import Subject
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from tests import helpers

DRAWN = "weights = {n: rng"
RETURNED = "        return weights\n"

MISTAKES = [
    (
        'name="own"',
        'name="owm"',
        "own: the cell is declared as 'own', and its info.name is 'owm'; both must be "
        "the same: write CellInfo(name='own', ...), or declare the cell by the other "
        "name",
    ),
    (
        DRAWN,
        f"rng = np.random.default_rng()\n        {DRAWN}",
        "own: initial_weights('canonical') differs in w_ih between two calls with "
        "equal generators; draw all that is random from the rng that it is given",
    ),
    (
        RETURNED,
        "        self.calls = getattr(self, 'calls', 0) + 1\n"
        "        weights['b'] += 0.01 * self.calls * (scheme == 'chrono')\n" + RETURNED,
        "initial_weights('chrono') differs in b between two calls",
    ),
    (
        RETURNED,
        "        return {**weights, 'b': weights['b'][:, :1]}\n",
        "'b': (2, 1)} for 3 inputs and 5 units, and weight_shapes says {'w_ih': "
        "(2, 5, 3), 'w_hh': (2, 5, 5), 'b': (2, 5)}; both must be the same",
    ),
    (
        '{"canonical": sum(int(np.prod(shape)) for shape in shapes.values())}',
        '{"canonical": 12}',
        "own: parameter_counts says canonical: 12 for 3 inputs and 5 units, and the "
        "weights of weight_shapes have 90 numbers; both must be the same",
    ),
]


def a_cell(folder: Path, right: str, wrong: str) -> Path:
    file = folder / "own.py"
    write_plugin(NewPlugin("cell", "own", file=file), helpers.REGISTRY)
    text = file.read_text()
    assert right in text
    return helpers.write(file, text.replace(right, wrong))


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_cell_that_breaks_its_contract_is_refused(
    right: str, wrong: str, message: str, tmp_path: Path
) -> None:
    registry = Registry.discover([a_cell(tmp_path, right, wrong)])
    trial = replace(helpers.LEARNING, cell="own")
    with pytest.raises(PluginError) as raised:
        Subject.of(registry, trial)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", helpers.REGISTRY.cells)
def test_every_built_in_cell_keeps_its_contract(name: str) -> None:
    Subject.of(helpers.REGISTRY, replace(helpers.LEARNING, cell=name))


@pytest.mark.parametrize("which", [0, 1])
def test_check_says_what_a_cell_breaks(
    which: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right, wrong, message = MISTAKES[which]
    file = a_cell(tmp_path, right, wrong)
    command = ["check", str(file), "-k", "torch-loop"]
    code, out, _ = helpers.call(command, monkeypatch, capsys)
    assert code == 5
    assert message in out
    assert "certified" not in out
