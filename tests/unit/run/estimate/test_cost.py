"""Predicted costs of trials, with no or many observations, and the time left."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.contract import Optimizer
from harness.run.estimate import calibration
from harness.run.estimate.calibration import Calibration
from harness.run.estimate.cost import Cost, Totals, stage_s
from harness.run.estimate.history import MOST_LINES
from harness.run.estimate.model import CostModel
from harness.run.execution import Execution
from harness.run.executor import Executor
from harness.run.job import Answer, Options
from harness.run.plan.expand import LearningGroup
from harness.run.plan.plan import Plan
from harness.run.plan.todo import Planned
from harness.run.progress import Progress, _Running
from harness.store import Reading, RunFolder, TrialRecord
from harness.suite import load_suite
from harness.trial import GradientsSettings, LearningSettings, SpeedSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY

HERE = Calibration(step_s=1e-5, flop_per_s=1e10)
SIZES = {"worker_memory_bytes": 2**28, "disk_bytes": 5000}
TIMED = SpeedSettings(("train_step",), rounds=3, readings=2)


def learning(**changes: object) -> Trial:
    trial = replace(
        helpers.LEARNING,
        length=100,
        hidden_size=64,
        batch=32,
        optimizer=Optimizer(),
        settings=LearningSettings(2000, evaluate_sequences=500),
    )
    return replace(trial, **changes)  # type: ignore[arg-type]


def model(file: Path | None = None, *records: TrialRecord) -> CostModel:
    return CostModel(REGISTRY, records, file, lambda: HERE)


def ended(
    trial: Trial,
    wall_time_s: float,
    *,
    updates: int | None = None,
    update_s: float | None = None,
    **result: object,
) -> TrialRecord:
    """Return the record of a trial that ended ok."""
    most = getattr(trial.settings, "updates", None)
    outcome = Reading("outcome", {"updates": updates, "budget": most})
    readings = [outcome] if updates else []
    readings += [Reading("train_step", {"time_s": update_s})] if update_s else []
    result["wall_time_s"] = wall_time_s
    return TrialRecord("", trial, "ok", None, result, tuple(readings))


def one_seed(folder: Path, *, gradients: bool = False) -> Execution:
    """Return a run with two trials before one that learns, in a new folder."""
    text = helpers.TINY.replace("seeds = [0, 1]", "seeds = [0]")
    if gradients:
        text = text.replace("gradients = false", "gradients = true")
    suite = load_suite(str(helpers.write(folder / "tiny.toml", text)), REGISTRY)
    run = RunFolder.create(folder / "run")
    return Execution(suite, REGISTRY, run, "cpu")


def done(asked: Execution, *measures: str) -> None:
    """Commit the trials of some measures as if they had been run."""
    for _, stage in asked.preview():
        for todo in (preview.todo for preview in stage):
            if todo.trial.measure in measures and todo.runs:
                attempt = asked.run.begin(todo.trial, todo.id, todo.sources)
                readings = [Reading("outcome", {"updates": 1200})]
                attempt.commit({"outcome": "ok", "reason": None}, readings)


# --- prediction ----------------------------------------------------------------------


def test_an_observed_cost_is_predicted() -> None:
    seen = model()
    assert seen.predict(learning()).basis == "a guess"
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 40.0, updates=2000, **SIZES))
    found = seen.predict(learning(seed=9))
    assert found.basis == "the same shape in this run"
    assert found.wall_time_s == pytest.approx(40, rel=0.1)
    assert found.memory_bytes == 2**28
    assert found.disk_bytes == pytest.approx(5000, rel=0.01)


def test_twice_the_updates_are_predicted_to_take_twice_the_time() -> None:
    seen = model()
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 40.0, updates=2000))
    twice = learning(settings=LearningSettings(4000, evaluate_sequences=500))
    assert seen.predict(twice).wall_time_s == pytest.approx(80, rel=0.15)


def test_learning_that_stopped_early_when_solved_is_expected_to_stop_early_again() -> (
    None
):
    seen = model()
    assert seen.predict(learning()).at_most
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 10.0, updates=500))
    found = seen.predict(learning(seed=9))
    assert not found.at_most
    assert found.wall_time_s == pytest.approx(10, rel=0.1)


def test_the_machine_is_not_calibrated_if_nothing_is_predicted() -> None:
    unused = CostModel(REGISTRY, calibration=pytest.fail)
    assert unused.estimate([[], []], 2).trials == 0


def test_resuming_a_finished_run_does_not_calibrate_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = one_seed(tmp_path)
    done(asked, "parity", "speed", "learning")
    monkeypatch.setattr(calibration, "_step", pytest.fail)
    calibration.calibrate.cache_clear()
    asked = one_seed(tmp_path)
    asked.execute(Console(file=io.StringIO()))
    assert asked.estimate().trials == 0


def test_a_resumed_run_has_only_unfinished_trials_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[set[str]] = []

    def look(executor: Executor, plan: object) -> None:
        left.append({e.trial.measure for e in executor.progress._left.values()})

    monkeypatch.setattr(Executor, "execute", look)
    one_seed(tmp_path).execute(Console(file=io.StringIO()))
    done(one_seed(tmp_path), "parity", "speed")
    one_seed(tmp_path).execute(Console(file=io.StringIO()))
    done(one_seed(tmp_path), "learning")
    one_seed(tmp_path).execute(Console(file=io.StringIO()))
    assert left == [{"parity", "speed", "learning"}, {"learning"}, set()]


def test_a_run_with_learning_left_also_has_its_gradients_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []

    def look(executor: Executor, plan: object) -> None:
        left.extend(e.trial.measure for e in executor.progress._left.values())

    monkeypatch.setattr(Executor, "execute", look)
    done(one_seed(tmp_path, gradients=True), "parity", "speed")
    one_seed(tmp_path, gradients=True).execute(Console(file=io.StringIO()))
    assert sorted(left) == ["gradients", "learning"]


def test_a_sentence_says_what_the_disk_is_for() -> None:
    assert Totals(61.0, 2**30, 2**20).sentence() == (
        "1 min 01 s, 1.0 GiB of memory, 1.0 MiB of disk for curves, weights and logs"
    )


def test_the_cost_of_what_the_reference_computes_is_known_from_the_reference() -> None:
    seen = model()
    of_numpy = learning(measure="gradients", settings=GradientsSettings())
    of_torch = replace(of_numpy, implementation="torch-native")
    seen.learn(ended(of_numpy, 3.0))
    assert seen.predict(of_torch).basis == "the same framework"
    own = replace(of_torch, measure="parity")
    seen.learn(ended(replace(of_numpy, measure="parity"), 3.0))
    assert seen.predict(own).basis == "the same measure"


def test_only_the_rest_of_a_resumed_trial_counts() -> None:
    seen = model()
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 40.0, updates=2000))
    trial = learning(seed=9)
    whole = seen.estimate([[trial]], 1).totals.wall_time_s
    found = seen.estimate([[trial]], 1, {trial.key(): 0.75}).totals.wall_time_s
    assert found == pytest.approx(whole / 4)


def test_learning_that_is_still_unsolved_is_expected_to_continue_to_its_end() -> None:
    seen = model()
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 10.0, updates=500))
    cost = seen.predict(learning())
    assert cost.left_s(0.125) == pytest.approx(cost.wall_time_s / 2)
    assert cost.left_s(0.75) == pytest.approx(cost.wall_time_s)


def test_a_checkpoint_shortens_the_estimate_of_its_run_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []

    def look(executor: Executor, plan: object) -> None:
        left.append(executor.progress._time_left_s())

    monkeypatch.setattr(Executor, "execute", look)

    def estimate(*, force: bool = False) -> float:
        asked = replace(one_seed(tmp_path), options=Options(force=force))
        estimated_s = asked.estimate().totals.wall_time_s
        asked.execute(Console(file=io.StringIO()))
        assert left[-1] == pytest.approx(estimated_s)
        return estimated_s

    whole = estimate()
    asked = one_seed(tmp_path)
    (todo,) = [
        p.todo
        for _, stage in asked.preview()
        for p in stage
        if p.todo.trial.measure == "learning"
    ]
    attempt = asked.run.begin(todo.trial, todo.id, todo.sources)
    attempt.checkpoint({"updates": 900}, {})
    attempt.abandon()
    trial_s = model().predict(todo.trial).wall_time_s
    assert estimate() < whole - 0.1 * trial_s
    assert estimate(force=True) == pytest.approx(whole)


def test_the_pace_of_learning_is_that_since_it_began_or_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    todo = Planned(learning(), "learning", {}, True, "was interrupted")
    clock = iter((0.0, 10.0, 14.0))  # start, late first update, question
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    running = _Running(todo, time.monotonic(), time.monotonic(), 0.5, 0.7)
    left_s = running.left_s(Cost(100.0, 0, 0), turns=1)
    assert left_s == pytest.approx(4 * 0.3 / 0.2)


def test_running_and_waiting_trials_are_expected_to_end_where_others_were_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, now = model(), [0.0]
    for seed in range(3):
        seen.learn(ended(learning(seed=seed), 10.0, updates=500))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(Console(file=io.StringIO()), 1, seen)
    runs, waits = learning(seed=8), learning(seed=9)
    groups = tuple(
        LearningGroup((trial,), follow_gradients=False) for trial in (runs, waits)
    )
    progress.expect(Plan((), {}, groups))
    todo = Planned(runs, "runs", {}, True, "new")
    progress.started(todo)
    now[0] = 8.0
    progress.event(todo, Reading("held_out", {"loss": 0.1}, 300, "updates"))
    waiting_s = seen.predict(waits).wall_time_s
    assert waiting_s == pytest.approx(10, rel=0.1)
    # 200 of 500 updates are left, and 300 took 8 s.
    assert progress._time_left_s() == pytest.approx(8 * 200 / 300 + waiting_s)


def test_a_run_that_is_faster_than_earlier_ones_is_expected_to_stay_faster(
    tmp_path: Path,
) -> None:
    earlier = model(tmp_path / "costs.jsonl")
    for cell in ("gru", "lstm"):
        for seed in range(5):
            earlier.learn(ended(learning(cell=cell, seed=seed), 40.0, updates=2000))
    now = model(tmp_path / "costs.jsonl")
    lstm = learning(cell="lstm", seed=9)
    assert now.predict(lstm).wall_time_s == pytest.approx(40, rel=0.1)
    now.learn(ended(learning(seed=7), 10.0, updates=2000))
    assert now.predict(lstm).wall_time_s == pytest.approx(10, rel=0.1)
    # Only the observations of this run count for its shape.
    now.learn(ended(lstm, 20.0, updates=2000))
    assert now.predict(lstm).wall_time_s == pytest.approx(20, rel=0.1)


def test_timed_updates_predict_the_time_of_learning() -> None:
    seen = model()
    timed = learning(measure="speed", settings=TIMED)
    seen.learn(ended(timed, 3.0, update_s=0.02))
    found = seen.predict(learning())
    assert found.basis == "its timed updates"
    assert found.wall_time_s == pytest.approx(2000 * 0.02 * 1.3, rel=0.3)


def test_jobs_share_trials_that_are_not_timed() -> None:
    seen = model()
    trials = [learning(seed=seed) for seed in range(4)]
    seen.learn(ended(learning(seed=9), 10.0, updates=2000, **SIZES))
    alone, both = (seen.estimate([trials], jobs) for jobs in (1, 2))
    assert alone.totals.wall_time_s == pytest.approx(2 * both.totals.wall_time_s)
    assert both.totals.memory_bytes == 2 * alone.totals.memory_bytes == 2**29
    assert alone.trials == 4
    assert (alone.known, alone.guessed) == (1, 0)


def test_the_time_of_a_stage_takes_no_memory_for_jobs_without_a_trial() -> None:
    stage = [(learning(), 2.0), (learning(), 3.0)]
    assert stage_s(stage, 10**15) == 3.0
    assert stage_s(stage, 1) == 5.0
    assert stage_s([], 10**15) == 0.0


def test_a_guess_grows_with_every_size() -> None:
    at = model().predict(learning()).wall_time_s
    for changes in ({"length": 200}, {"hidden_size": 128}, {"batch": 64}):
        assert model().predict(learning(**changes)).wall_time_s > 1.2 * at


def test_a_plugin_that_cannot_be_loaded_here_still_has_a_predicted_time() -> None:
    assert model().predict(learning(task="nowhere")).wall_time_s > 0


def test_a_stage_is_as_long_as_its_longest_trial_and_sessions_follow_each_other() -> (
    None
):
    timed = [learning(measure="speed", session=s, settings=TIMED) for s in "ab"]
    seen = model()
    for trial, seconds in ((learning(), 90.0), (learning(cell="lstm"), 10.0)):
        seen.learn(ended(trial, seconds, updates=2000))
    for trial in timed:
        seen.learn(ended(trial, 30.0))

    def seconds(*stages: list[Trial]) -> float:
        return seen.estimate(stages, 3).totals.wall_time_s

    learns = [learning(), learning(cell="lstm"), learning(cell="lstm", seed=1)]
    assert seconds(learns) == pytest.approx(90, rel=0.1)
    assert seconds(timed) == pytest.approx(60)
    assert seconds(timed, learns) == pytest.approx(seconds(timed) + seconds(learns))


def test_good_trials_of_this_folder_are_observations_and_failed_ones_are_not() -> None:
    good = [ended(learning(seed=seed), 40.0, updates=2000) for seed in range(2)]
    bad = replace(ended(learning(), 1.0), outcome="crashed")
    found = model(None, *good, bad)
    assert found.known == 2
    assert found.predict(learning()).wall_time_s == pytest.approx(40)


def test_trials_that_took_turns_share_the_time_of_their_session() -> None:
    timed = learning(measure="speed", session="s", settings=TIMED)
    both = [replace(timed, cell=cell) for cell in ("gru", "lstm")]
    found = model(None, *(ended(trial, 60.0, session="s 1") for trial in both))
    assert found.predict(timed).wall_time_s == pytest.approx(30)


@pytest.mark.parametrize(
    ("measure", "values", "words"),
    [
        ("parity", ("certificate", {"certified": 1, "checks": 9}), "certified (9"),
        (
            "parity",
            ("certificate", {"certified": 0, "checks": 9, "broken": 2}),
            "NOT certified (2 of 9 checks broken)",
        ),
        ("learning", ("outcome", {"solved": 0, "budget": 7}), "not solved within 7 u"),
        ("gradients", ("initial", {"horizon_loss": 5}), "horizon 5 before training"),
        ("speed", ("forward", {"time_s": 0.002}), "forward 2 ms"),
    ],
)
def test_a_finished_trial_is_described_by_its_measure(
    measure: str, values: tuple[str, dict[str, object]], words: str
) -> None:
    shown = io.StringIO()
    progress = Progress(Console(file=shown, width=200), 1, model())
    todo = Planned(learning(measure=measure), "id", {}, True, "new")
    progress.started(todo)
    progress.finished(todo, Answer("ok", None, readings=(Reading(*values),)))
    assert words in shown.getvalue()


# --- observations of earlier runs -----------------------------------------------------


def test_history_survives_a_run_and_a_truncated_line(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    model(file).learn(ended(learning(), 40.0, updates=2000, **SIZES))
    with file.open("a") as stream:
        stream.write('{"machine": "an')  # killed here
    model(file).learn(ended(learning(seed=1), 42.0, updates=2000, **SIZES))
    again = model(file)
    assert again.known == 2
    assert again.predict(learning(seed=5)).wall_time_s == pytest.approx(41, rel=0.1)


def test_history_of_another_machine_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    model(file).learn(ended(learning(), 40.0, updates=2000, processor="elsewhere"))
    assert model(file).known == 0


def test_lines_that_are_not_observations_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    model(file).learn(ended(learning(), 40.0, updates=2000))
    line = json.loads(file.read_text())
    del line["checksum"]  # as in an earlier version
    damaged = [
        {**line, "wall_time_s": -1.0},
        {**line, "wall_time_s": float("nan")},
        {**line, "share": 0.0},
        {**line, "alike": 7},
        {**line, "work": {"calls": 1.0}},
        {**line, "work": {"time_steps": 1.0, "file_bytes": 0}},
        {**line, "wall_time_s": 10**400},
        {**line, "update_s": 0.1},  # of a different version
        {"machine": line["machine"]},
        [],
    ]
    with file.open("a") as stream:
        stream.writelines(f"\n{json.dumps(values)}" for values in damaged)
        stream.write("\nnot json \0\n\n")
        stream.write("[" * 20_000 + "\n")
    assert model(file).known == 1


def test_history_keeps_the_newest_observations(tmp_path: Path) -> None:
    file = tmp_path / "costs.jsonl"
    model(file).learn(ended(learning(), 40.0, updates=2000))
    helpers.write(file, file.read_text() * (2 * MOST_LINES))
    model(file).learn(ended(learning(), 7.0, updates=2000))
    assert json.loads(file.read_text().splitlines()[-1])["wall_time_s"] == 7.0
    assert len(file.read_text().splitlines()) <= 1.2 * MOST_LINES + 1


@pytest.mark.parametrize("harm", ["a folder", "read-only"])
def test_a_history_that_cannot_be_written_is_not_an_error(
    tmp_path: Path, harm: str
) -> None:
    file = tmp_path / "costs.jsonl"
    if harm == "a folder":
        file.mkdir()
    else:
        file = Path("/proc/costs.jsonl")
    found = model(file)
    found.learn(ended(learning(), 40.0, updates=2000))
    assert found.predict(learning(seed=1)).wall_time_s == pytest.approx(40, rel=0.1)


def test_planning_ten_thousand_trials_predicts_each_kind_once() -> None:
    seen = model()
    start = time.process_time()
    estimate = seen.estimate([[learning(seed=s, data_seed=s) for s in range(2000)]], 2)
    assert estimate.trials == 2000
    assert len(seen._costs) == 1
    assert time.process_time() - start < 30
