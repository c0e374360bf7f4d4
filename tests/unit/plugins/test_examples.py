"""Every example and every command of the README runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.loading import load_task
from harness.registry import Registry
from harness.store import RunFolder
from harness.suite import load_suite
from tests import helpers

ROOT = helpers.ROOT
EXAMPLE = ROOT / "examples" / "next_value.py"
HARNESS = Path(sys.executable).parent / "rnn-harness"


@pytest.mark.slow
def test_the_tutorial_runs_as_the_readme_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            HARNESS, "run", ROOT / "examples" / "tutorial.toml", "--plugin", EXAMPLE,
            "-o", tmp_path / "run", "-k", "gru and numpy-reference", "--seeds", "0",
            "--set", "learning.evaluate_sequences=100",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = RunFolder.open(tmp_path / "run").records()
    learned = [r for r in records if r.trial.measure == "learning"]
    assert [r.value("outcome", "solved") for r in learned] == [1]
    parameters = learned[0].result["parameters"]
    assert parameters["keras"] == 3360 + 33
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_floor_in_the_tutorial_is_that_of_the_constant_answer() -> None:
    registry = Registry.discover([EXAMPLE])
    task = load_task(registry, "next-value", {})
    rng = np.random.default_rng(0)
    batch = task.sample(rng, batch=20000, length=20)
    loss = task.score(np.zeros((20000, 1, 1)), batch)["loss"].mean
    # The variance of sin^2 is 1/8, so the standard error is 0.0025.
    assert loss == pytest.approx(task.floor(length=20)["loss"], abs=5 * 0.0025)
    assert not task.solved(loss, {})
    perfect = task.score(batch.targets, batch)["loss"].mean
    assert task.solved(perfect, {})


def test_the_layer_in_the_readme_can_be_read_and_declared(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 1
    file = tmp_path / "my_gru.py"
    file.write_text(blocks[0])
    registry = Registry.discover([file])
    assert registry.problems == []
    assert registry.implementation("my-gru").cells == ("gru",)


def test_the_suites_and_settings_in_the_readme_are_accepted() -> None:
    registry = Registry.discover([EXAMPLE])
    load_suite("quick", registry, ["learning.0.length=50"], [0, 1])
    for name in ("quick", "smoke", "standard", str(ROOT / "examples/tutorial.toml")):
        assert load_suite(name, registry).name in name


def test_every_link_of_the_readme_has_a_target() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", readme)
    links = [link or source for link, source in links]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
