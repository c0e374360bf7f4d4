"""Trials that are timed together share a fate no more than they must."""

from pathlib import Path

from harness.store import RunFolder
from tests import helpers

SUITE = """\
name = "sessions"
why = "For tests."

[[speed]]
cells = ["rnn"]
implementations = ["numpy-reference", "dies-late"]
phases = ["forward"]
rounds = 3
readings = 2
shapes = [{ batch = 8, time_steps = 20, input_size = 2, hidden_size = 16 }]
"""
RUN = ("run", "suite.toml", "-o", "out", "--no-certify", "--plugin")
RUN = (*RUN, helpers.PLUGINS / "dies_late.py")


def test_a_bad_neighbour_takes_no_good_timing_along(tmp_path: Path) -> None:
    helpers.write(tmp_path / "suite.toml", SUITE)
    code, _, err = helpers.run(*RUN, "-k", "numpy-reference", cwd=tmp_path)
    assert code == 0, err
    code, out, _ = helpers.run(*RUN, "--why", cwd=tmp_path)
    again = "runs, is timed again beside what runs of its session"
    assert f"numpy-reference 8x20x16 s0: {again}" in out
    assert "2 would run, 0 are done" in out
    code, _, err = helpers.run(*RUN, cwd=tmp_path)
    assert code == 4, err
    run = RunFolder.open(tmp_path / "out")
    ended = {r.trial.implementation: r.outcome for r in run.records()}
    assert ended == {"numpy-reference": "ok", "dies-late": "crashed"}


def test_what_was_good_stays_where_it_fails_when_it_is_timed_again(
    tmp_path: Path,
) -> None:
    helpers.write(tmp_path / "suite.toml", SUITE)
    code, _, err = helpers.run(*RUN, "-k", "numpy-reference", cwd=tmp_path)
    assert code == 0, err
    out = tmp_path / "out"
    (file,) = out.glob("trials/*/result.json")
    before = file.read_bytes()
    code, _, err = helpers.run(
        *(*RUN, "-k", "numpy-reference", "--force", "--timeout", 0.01), cwd=tmp_path
    )
    assert "stopped at the time limit of 0.01 s; its earlier result stays" in err
    assert file.read_bytes() == before
