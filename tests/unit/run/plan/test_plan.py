from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MisuseError
from harness.run.job import Answer
from harness.run.plan import expand
from harness.run.plan.choice import choose
from harness.run.plan.derived import certificate_trial, timed_trial
from harness.run.plan.plan import Plan, make_plan
from harness.run.plan.todo import planned
from harness.store import Reading, RunFolder
from harness.suite import SpeedSection, built_in_suites, load_suite
from harness.trial import SpeedSettings, Trial
from tests import helpers
from tests.helpers import REGISTRY


def plan(
    suite: str,
    expression: str | None = None,
    choices: dict[str, str] | None = None,
    seeds: list[int] | None = None,
    settings: tuple[str, ...] = (),
) -> Plan:
    loaded = load_suite(suite, REGISTRY, settings, seeds)
    return make_plan(
        loaded, REGISTRY, "cpu", expression=expression, choices=choices or {}
    )


def speed(found: Plan) -> list[Trial]:
    return [trial for trials in found.speed.values() for trial in trials]


def candidates(found: Plan) -> list[Trial]:
    return [trial for group in found.learning for trial in group.candidates]


# --- which implementations learn ------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "implementations", "message"),
    [
        (
            '["gru"]',
            '["onnxruntime"]',
            "learning[0].implementations: 'onnxruntime' does not train; leave it out; "
            "the cell 'gru' on cpu in float32 is trained by ",
        ),
        # Also beside one that trains.
        (
            '["gru"]',
            '["numpy-reference", "onnxruntime"]',
            "learning[0].implementations: 'onnxruntime' does not train; leave it out; ",
        ),
        (
            '["gru-reset-before"]',
            '["torch-native"]',
            "learning[0].implementations: 'torch-native' does not compute the cell; "
            "the cell 'gru-reset-before' on cpu in float32 is trained by ",
        ),
    ],
)
def test_the_error_for_an_implementation_that_does_not_train_names_some_that_do(
    cells: str, implementations: str, message: str
) -> None:
    settings = (
        f"learning.0.cells={cells}",
        f"learning.0.implementations={implementations}",
    )
    with pytest.raises(MisuseError) as raised:
        plan("quick", settings=settings)
    assert message in str(raised.value)
    trainers = str(raised.value).partition("is trained by ")[2].split(", ")
    assert "numpy-reference" in trainers
    assert all(REGISTRY.implementation(name).trains for name in trainers)


def test_cells_that_an_implementation_lacks_are_left_out_of_its_grid() -> None:
    settings = (
        'learning.0.cells=["gru", "gru-reset-before"]',
        'learning.0.implementations=["numpy-reference", "torch-native"]',
    )
    found = {
        (t.cell, t.implementation) for t in candidates(plan("quick", settings=settings))
    }
    assert ("gru-reset-before", "numpy-reference") in found
    assert ("gru-reset-before", "torch-native") not in found


# --- the grid ------------------------------------------------------------------------


@pytest.mark.parametrize("name", built_in_suites())
def test_the_grid_is_the_product_of_the_lists_in_the_suite(name: str) -> None:
    suite = load_suite(name, REGISTRY)
    found = plan(name)
    groups = sum(
        len(s.length)
        * len(s.cells)
        * len(s.seeds)
        # One group for each choice, or for each implementation without a choice.
        * (len(s.implementations or ()) if s.learn_on_each else 1)
        for s in suite.learning
    )
    assert len(found.learning) == groups
    used = candidates(found) + speed(found)
    needed = {certificate_trial(t).key() for t in used}
    assert {t.key() for t in found.certificates} == needed
    assert len(found.certificates) == len(needed)
    asked = {
        (cell, *sizes, threads, precision)
        for section in suite.speed
        for shape in section.shapes
        for cell, threads, precision in product(
            section.cells, section.threads, section.precision
        )
        for sizes in product(
            shape.batch, shape.time_steps, shape.input_size, shape.hidden_size
        )
    }
    by_shape = [t for t in speed(found) if t.task is None]
    timed_shapes = {
        (t.cell, t.batch, t.time_steps, t.input_size, t.hidden_size, *rest)
        for t in by_shape
        for rest in [(t.threads, t.precision)]
    }
    assert timed_shapes == asked
    weighed = {t.key() for s in suite.speed if s.memory for t in by_shape}
    assert bool(found.independent["memory"]) == bool(weighed)
    choices = [g for g in found.learning if not g.on_each]
    timed = {timed_trial(t).key() for g in choices for t in g.candidates}
    assert timed <= {t.key() for t in speed(found)}
    slots = [t.key() for t in [*found.certificates, *speed(found), *candidates(found)]]
    assert len(slots) == len(set(slots))


def test_the_quick_suite_has_three_cells_two_tasks_and_three_seeds() -> None:
    found = plan("quick")
    asked = {(t.cell, t.task, t.seed) for t in candidates(found)}
    assert asked == {
        (cell, task, seed)
        for cell in ("rnn", "gru", "lstm")
        for task in ("adding", "copy-memory")
        for seed in (0, 1, 2)
    }


def test_the_standard_suite_has_ten_seeds_and_three_lengths() -> None:
    found = plan("standard")
    assert len(found.learning) == 2 * 3 * 4 * 10
    assert {t.seed for t in candidates(found)} == set(range(10))


def test_learning_runs_on_one_thread() -> None:
    assert {t.threads for t in candidates(plan("standard"))} == {1}


def test_a_session_holds_every_implementation_of_one_shape() -> None:
    for name, trials in plan("standard").speed.items():
        assert {t.session for t in trials} == {name}
        assert (
            len({(t.batch, t.time_steps, t.length, t.hidden_size) for t in trials}) == 1
        )


def test_seeds_can_be_replaced_and_duplicates_count_once() -> None:
    found = plan("quick", seeds=[4, 4])
    assert {t.seed for t in candidates(found)} == {4}
    assert len(found.learning) == len({g.candidates[0].key() for g in found.learning})
    assert len(found.learning) == 6


# --- filters -------------------------------------------------------------------------


def test_a_filter_keeps_the_trials_that_it_names_and_those_that_they_need() -> None:
    found = plan("quick", "learning and adding and gru and seed1")
    (group,) = found.learning
    assert {t.seed for t in group.candidates} == {1}
    needed = {timed_trial(t).key() for t in group.candidates}
    assert {t.key() for t in speed(found)} == needed
    certificates = {certificate_trial(t).key() for t in group.candidates}
    assert {t.key() for t in found.certificates} == certificates


def test_gradients_include_their_learning_trials() -> None:
    found = plan("quick", "gradients and lstm and seed0")
    assert {(t.cell, t.seed) for t in candidates(found)} == {("lstm", 0)}
    assert {g.candidates[0].task for g in found.learning} == {"adding", "copy-memory"}


def test_a_filter_can_select_certificates_alone() -> None:
    found = plan("quick", "parity and torch-native")
    assert {t.implementation for t in found.certificates} == {"torch-native"}
    assert len(found.certificates) == 3
    assert not found.speed
    assert not found.learning


def test_a_filter_can_select_speed_alone() -> None:
    found = plan("quick", "speed and not adding and not copy-memory")
    assert not found.learning
    assert {t.task for t in speed(found)} == {None}
    assert len(found.certificates) == len(speed(found))


def test_a_filter_on_an_implementation_reduces_the_candidates() -> None:
    found = plan("quick", "numpy-reference")
    assert {t.implementation for t in candidates(found)} == {"numpy-reference"}
    assert {t.implementation for t in speed(found)} == {"numpy-reference"}


@pytest.mark.parametrize("expression", ["gru and lstm", "seed0 and seed1", "not cpu"])
def test_a_filter_that_matches_nothing_is_refused(expression: str) -> None:
    with pytest.raises(MisuseError, match=r"matches no trial; .*--dry-run"):
        plan("quick", expression)


# --- choices -------------------------------------------------------------------------


def test_a_choice_of_an_implementation_is_kept() -> None:
    free = plan("quick", "learning and gru and adding")
    key = free.learning[0].choice_key
    assert {t.implementation for t in candidates(free)} == {
        "numpy-reference",
        "torch-native",
    }
    bound = plan(
        "quick", "learning and gru and adding", choices={key: "numpy-reference"}
    )
    assert {t.implementation for t in candidates(bound)} == {"numpy-reference"}


class Found:
    """A fake record of a certificate or of a timing."""

    outcome, reason = "ok", None

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def value(self, split: str, metric: str) -> float | None:
        return self.values.get(metric)


@pytest.mark.parametrize("numpy_s", [0.9, 1.1])
@pytest.mark.parametrize("learn_on", [(), ("torch-native", "numpy-reference")])
def test_a_fixed_order_decides_whatever_the_timings_are(
    numpy_s: float, learn_on: tuple[str, ...]
) -> None:
    group = plan("quick", "learning and gru and adding").learning[0]
    times = {"numpy-reference": numpy_s, "torch-native": 1.0}

    def find(trial: Trial) -> Any:
        time_s = times[trial.implementation]
        return Found({"certified": 1, "ok": 1, "time_s": time_s})

    found = choose(replace(group, learn_on=learn_on), find).trial.implementation
    fastest = min(times, key=lambda name: times[name])
    assert found == (learn_on[0] if learn_on else fastest)


def test_learning_never_uses_an_uncertified_implementation_whatever_its_order() -> None:
    group = plan("quick", "learning and gru and adding").learning[0]

    def find(trial: Trial) -> Any:
        certified = int(trial.implementation == "numpy-reference")
        values = {"certified": certified, "broken": 2, "checks": 20}
        return Found({**values, "ok": 1, "time_s": 1.0})

    assert group.learn_on[0] == "torch-native"
    assert choose(group, find).trial.implementation == "numpy-reference"
    only = replace(group, candidates=group.candidates[1:])
    assert choose(only, find).refused == (
        "no certified implementation: torch-native is not certified (2 of 20 checks "
        "broken)"
    )


def test_an_implementation_that_was_not_chosen_is_still_timed_and_a_note_says_so() -> (
    None
):
    key = plan("quick", "learning and gru and adding").learning[0].choice_key
    made = {key: "numpy-reference"}
    found = plan("quick", "gru and adding and torch-native", choices=made)
    assert found.learning == ()
    timed = [t for trials in found.speed.values() for t in trials]
    assert [t.implementation for t in timed] == ["torch-native"]
    assert len(found.notes) == 1
    assert "on numpy-reference in this run, a choice made once" in found.notes[0]
    whole = plan("quick", "gru and adding", choices=made)
    timed = [t for trials in whole.speed.values() for t in trials]
    assert {t.implementation for t in timed} == {"numpy-reference", "torch-native"}
    assert whole.notes == ()


def test_one_choice_serves_all_seeds_of_a_cell_and_task() -> None:
    keys = {(g.choice_key, g.candidates[0].cell) for g in plan("quick").learning}
    assert len(keys) == 6


def test_a_chosen_implementation_that_is_missing_is_an_error() -> None:
    key = plan("quick", "learning and gru and adding").learning[0].choice_key
    with pytest.raises(MisuseError, match=r"on 'my-gru', a choice made once.*--plugin"):
        plan("quick", choices={key: "my-gru"})


def test_the_reference_runs_on_the_cpu_whatever_the_device_of_others() -> None:
    suite = load_suite("agreement", REGISTRY)
    found = make_plan(suite, REGISTRY, "cuda:0", choices={})
    devices = {
        (t.implementation, t.device) for t in [*candidates(found), *found.certificates]
    }
    assert devices == {
        ("numpy-reference", "cpu"),
        ("torch-native", "cuda:0"),
        ("tensorflow-keras", "cuda:0"),
        ("jax-scan", "cuda:0"),
    }


# --- progress ------------------------------------------------------------------------


def test_progress_counts_every_trial_and_accepts_a_nan_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.create(tmp_path / "run")
    found = plan("smoke", "learning and adding and gru and numpy-reference")
    todo = planned(found.learning[0].candidates[0], REGISTRY, run)
    with helpers.progress(REGISTRY) as progress:
        progress.expect(found)
        progress.started(todo)
        score = Reading("held_out", {"loss": None, "hit_rate": 0.5}, 20, "updates")
        progress.event(todo, score)
        progress.finished(todo, Answer("diverged", "loss became NaN at update 20"))
    printed = capsys.readouterr().err
    # 1 certificate, 1 speed, 2 seeds and their gradients
    assert "[1/6]" in printed
    assert "diverged: loss became NaN at update 20" in printed


def test_two_sections_that_differ_in_a_constant_are_counted_separately(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helpers.TINY + helpers.learning(learning_rate=1e-2)
    file = helpers.write(tmp_path / "tiny.toml", text)
    found = plan(str(file))
    run = RunFolder.create(tmp_path / "run")
    todo = planned(found.learning[0].candidates[0], REGISTRY, run)
    with helpers.progress(REGISTRY) as progress:
        progress.expect(found)
        progress.started(todo)
        progress.finished(todo, Answer("crashed", "SIGSEGV"))
    assert "[1/6]" in capsys.readouterr().err  # 1 parity, 1 speed, 4 learning


def test_a_section_that_asks_for_memory_is_expanded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expanded = []
    shapes = expand._shapes

    def counted(section: SpeedSection) -> Any:
        expanded.append(section)
        return shapes(section)

    monkeypatch.setattr(expand, "_shapes", counted)
    found = plan("stream")
    assert found.independent["memory"]
    # The shapes are listed for each number of threads and each precision.
    (asked,) = load_suite("stream", REGISTRY).speed
    assert len(expanded) == len(asked.threads) * len(asked.precision)


def test_a_single_time_step_is_timed_once_for_each_size(tmp_path: Path) -> None:
    batch, steps, hidden = [32, 1], [20, 80], [16, 64]
    sizes: Any = {"batch": batch, "time_steps": steps, "hidden_size": hidden}
    shapes = [{"input_size": 8, **sizes}] * 2  # a shape given twice is timed once

    def timed(*phases: str, **changes: Any) -> dict[tuple[Any, ...], list[str]]:
        names = "numpy-reference", "onnxruntime"
        section = helpers.speed(*names, phases=list(phases), shapes=shapes, **changes)
        file = helpers.write(tmp_path / "s.toml", helpers.suite(section))
        found = plan(str(file))
        assert len(found.independent["memory"]) == len(speed(found))
        return {
            (t.implementation, t.batch, t.time_steps, t.hidden_size): [
                *t.settings_as(SpeedSettings).phases
            ]
            for t in speed(found)
        }

    found = timed("train_step", "stream", memory=True)
    assert {key for key, phases in found.items() if "stream" in phases} == set(
        product(("numpy-reference", "onnxruntime"), (1,), (20,), hidden)
    )
    assert found["numpy-reference", 1, 20, 16] == ["train_step", "stream"], (
        "what is stored under this trial stays its result"
    )
    assert found["numpy-reference", 1, 80, 64] == ["train_step"]
    assert ("onnxruntime", 1, 80, 64) not in found, "it has nothing to time there"
    assert len(timed("stream", memory=True)) == 4


def test_a_note_says_that_a_filter_leaves_out_the_single_time_steps(
    tmp_path: Path,
) -> None:
    sizes = {"batch": [1, 32], "time_steps": 20, "input_size": 8, "hidden_size": 16}
    phases = ["train_step", "stream"]
    section = helpers.speed("numpy-reference", phases=phases, shapes=[sizes])
    file = helpers.write(tmp_path / "s.toml", helpers.suite(section))
    (note,) = plan(str(file), expression="batch32").notes
    assert (
        note == "-k leaves out stream, which is timed at batch 1, 20 time steps alone"
    )
    assert plan(str(file), expression="batch1").notes == ()
    assert plan(str(file)).notes == ()


def test_an_implementation_without_training_is_timed_for_other_phases_alone(
    tmp_path: Path,
) -> None:
    def timed(**changes: Any) -> set[str]:
        section = helpers.speed("numpy-reference", "onnxruntime", **changes)
        file = helpers.write(tmp_path / "s.toml", helpers.suite(section))
        return {t.implementation for t in speed(plan(str(file)))}

    everyone: Any = {"implementations": None}
    assert "onnxruntime" in timed(**everyone, phases=["forward"])
    assert "onnxruntime" in timed(**everyone, phases=["stream", "train_step"])
    assert "onnxruntime" not in timed(**everyone, phases=["train_step"])
    # If it is named, it has a row that says why there is no timing.
    assert "onnxruntime" in timed(phases=["train_step"])
