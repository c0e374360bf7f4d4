"""Numbers without certificates are marked in every table that shows them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests import helpers

pytestmark = pytest.mark.slow

LEARNING = {
    "hidden_size": 4,
    "batch": 4,
    "updates": 20,
    "evaluate_every": 10,
    "seeds": [0],
    "gradients": True,
}
SUITE = helpers.suite(helpers.learning(**LEARNING))

NETWORK = "rnn 4 · 33 weights"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bare")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """Return the final output of the run without certificates."""
    helpers.write(folder / "bare.toml", SUITE)
    command = ("run", "bare.toml", "-o", "out", "--no-certify")
    code, out, err = helpers.finish(helpers.start(*command, cwd=folder, report=True))
    assert code == 0, err
    return out + err


def test_the_final_output_of_a_run_marks_uncertified_numbers(printed: str) -> None:
    assert f"{NETWORK} · uncertified" in printed


def test_show_marks_uncertified_numbers_and_says_why(
    printed: str, folder: Path
) -> None:
    code, shown, _ = helpers.read("show", "out", cwd=folder)
    assert code == 0
    assert f"{NETWORK} · uncertified" in shown
    assert "Uncertified (not checked): rnn numpy-reference." in shown
    horizons = [line for line in shown.splitlines() if line.startswith("  rnn 4  ")]
    assert horizons
    assert all("NO: not checked" in line for line in horizons)


def test_the_summary_marks_uncertified_numbers(printed: str, folder: Path) -> None:
    text = (folder / "out" / "summary.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| rnn 4")]
    assert len(rows) == 3  # results, training, horizons
    assert f"| {NETWORK} · uncertified |" in rows[0]
    assert all(row.endswith("| NO: not checked |") for row in rows[1:])


def test_a_certificate_removes_the_marks(printed: str, folder: Path) -> None:
    code, _, err = helpers.run("run", "bare.toml", "-o", "out", cwd=folder)
    assert code == 0, err
    _, shown, _ = helpers.read("show", "out", cwd=folder)
    assert NETWORK in shown
    assert "uncertified" not in shown.lower()
    assert "NO:" not in shown
    _, table, _ = helpers.read("export", "out", "--format", "csv", cwd=folder)
    learned = [
        row
        for row in csv.DictReader(io.StringIO(table))
        if row["measure"] in ("learning", "gradients")
    ]
    assert {row["certified"] for row in learned} == {"True"}
    assert {row["doubt"] for row in learned} == {""}


# A NumPy network that reads only the first 16 sequences of a batch.
PLUGIN = """\
from dataclasses import replace
from harness import declare_implementation

declare_implementation("few-sequences", framework="numpy", cells=["rnn"],
                       factory="few:network")

def network(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class FewSequences(NumpyNetwork):
        def place(self, batch):
            inputs = batch.inputs.copy()
            inputs[24:] = 0
            return super().place(replace(batch, inputs=inputs))

    return FewSequences(spec, cell, device)
"""


def test_a_certified_plugin_that_is_wrong_for_its_training_batch_is_marked(
    tmp_path: Path,
) -> None:
    helpers.write(tmp_path / "few.py", PLUGIN)
    changed = {**LEARNING, "batch": 32, "learn_on_each": True}
    suite = helpers.suite(helpers.learning(**changed))
    helpers.write(tmp_path / "bare.toml", suite)
    code, _, err = helpers.run(
        *("run", "bare.toml", "-o", "out", "--plugin", "few.py"), cwd=tmp_path
    )
    assert code == 0, err
    table = helpers.read("export", "out", "--format", "csv", cwd=tmp_path)[1]
    rows = list(csv.DictReader(io.StringIO(table)))
    found = {(r["measure"], r["implementation"]): r for r in rows}
    assert found["parity", "few-sequences"]["certified"] == "True"
    for measure in ("learning", "gradients"):
        assert found[measure, "numpy-reference"]["certified"] == "True"
        assert found[measure, "few-sequences"]["certified"] == "False"
        assert "read-back differs by" in found[measure, "few-sequences"]["doubt"]
    shown = helpers.read("show", "out", cwd=tmp_path)[1]
    assert f"{NETWORK} · few-sequences · uncertified" in shown
