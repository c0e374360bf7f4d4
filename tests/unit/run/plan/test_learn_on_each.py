"""In a section with `learn_on_each` every listed implementation learns."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MisuseError
from harness.registry import Registry
from harness.run.execution import Execution
from harness.run.job import Answer
from harness.run.plan.choice import admit
from harness.run.plan.derived import certificate_trial
from harness.run.plan.plan import Plan, make_plan
from harness.run.plan.todo import planned
from harness.store import RunFolder, TrialRecord
from harness.suite import LearningSection, load_suite
from harness.trial import Trial
from tests import fake_runs, helpers
from tests.helpers import REGISTRY

pytestmark = pytest.mark.slow

# A NumPy network with a wrong bias gradient, and one that never trains.
PLUGIN = """\
from harness import declare_implementation

DTYPES = ["float32", "float64"]
declare_implementation("wrong-bias", framework="numpy", cells=["rnn"],
                       factory="wrong:wrong_bias", dtypes=DTYPES)
declare_implementation("only-infers", framework="numpy", cells=["rnn"],
                       factory="wrong:wrong_bias", trains=False)

def wrong_bias(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    class WrongBias(NumpyNetwork):
        def _backward(self, *arguments):
            gradients, d_x, d_states = super()._backward(*arguments)
            gradients["layer0.b"] = 1.5 * gradients["layer0.b"]
            return gradients, d_x, d_states

    return WrongBias(spec, cell, device)
"""
EACH = helpers.suite(helpers.learning(learn_on_each=True))
FLOAT64 = helpers.learning(learn_on_each=True, dtype="float64")

BROKEN = 3
"""What a run exits with when a certificate is broken."""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.discover([helpers.write(tmp_path / "wrong.py", PLUGIN)])


def plan(text: str, folder: Path, registry: Registry, only: str | None = None) -> Plan:
    suite = load_suite(str(helpers.write(folder / "each.toml", text)), registry)
    return make_plan(suite, registry, "cpu", expression=only, choices={})


def learners(found: Plan) -> list[tuple[str, str, int | None]]:
    trials = [trial for group in found.learning for trial in group.candidates]
    assert len(trials) == len(found.learning), "nothing to choose from"
    return [(t.implementation, t.dtype, t.seed) for t in trials]


# --- the suite -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "learn_on_each",
            'learn_on = ["numpy-reference"]\nlearn_on_each',
            "each: every listed implementation learns, so that learn_on has nothing",
        ),
        (
            'implementations = ["numpy-reference"]\n',
            "",
            "learning[0].learn_on_each: list the implementations that",
        ),
        (
            '["numpy-reference"]',
            "[]",
            "learn_on_each: list the implementations",
        ),
        ("= true", '= "yes, please"', "learn_on_each: should be a valid boolean"),
        (
            '["numpy-reference"]',
            '["numpy-reference", "only-infers"]',
            "learning[0].implementations: 'only-infers' does not train; leave it out",
        ),
    ],
)
def test_settings_that_contradict_learn_on_each_are_refused(
    before: str, after: str, message: str, tmp_path: Path, registry: Registry
) -> None:
    assert before in EACH
    with pytest.raises(MisuseError) as raised:
        plan(EACH.replace(before, after), tmp_path, registry)
    assert message in str(raised.value)


def test_the_agreement_suite_has_the_constants_of_quick() -> None:
    def constants(section: LearningSection) -> dict[str, object]:
        apart = {"implementations", "learn_on", "learn_on_each", "dtype", "gradients"}
        return section.model_dump(exclude=apart)

    quick = load_suite("quick", REGISTRY).learning
    found = load_suite("agreement", REGISTRY).learning
    assert [constants(s) for s in found] == [
        constants(s) for s in quick for _ in ("float32", "float64")
    ]
    assert [s.dtype for s in found] == ["float32", "float64"] * 2
    assert all(s.learn_on_each and not s.gradients for s in found)
    listed = ("numpy-reference", "torch-native", "tensorflow-keras", "jax-scan")
    assert [s.implementations for s in found] == [listed, listed[:1]] * 2


# --- the plan ------------------------------------------------------------------------


def test_every_implementation_learns_in_its_dtype_and_those_of_plugin_files_too(
    tmp_path: Path, registry: Registry
) -> None:
    found = plan(EACH + FLOAT64, tmp_path, registry)
    assert learners(found) == [
        (name, dtype, seed)
        for dtype in ("float32", "float64")
        for seed in (0, 1)
        for name in ("numpy-reference", "wrong-bias")
    ]
    certified = {(t.implementation, t.dtype) for t in found.certificates}
    assert certified == {(name, dtype) for name, dtype, _ in learners(found)}
    assert not found.speed, "where nothing is chosen nothing has to be timed"


def test_an_implementation_of_a_plugin_file_is_left_out_for_a_dtype_it_lacks(
    tmp_path: Path,
) -> None:
    text = PLUGIN.replace('["float32", "float64"]', '["float32"]')
    known = Registry.discover([helpers.write(tmp_path / "wrong.py", text)])
    found = {
        (name, dtype)
        for name, dtype, _ in learners(plan(EACH + FLOAT64, tmp_path, known))
    }
    assert found == {
        ("numpy-reference", "float32"),
        ("numpy-reference", "float64"),
        ("wrong-bias", "float32"),
    }
    both = ["numpy-reference", "wrong-bias"]
    listed = helpers.learning(implementations=both, learn_on_each=True, dtype="float64")
    found_listed = learners(plan(EACH + listed, tmp_path, known))
    assert ("wrong-bias", "float64", 0) in found_listed, "it is refused with a reason"


def test_a_second_section_without_learn_on_each_is_timed_and_chosen_for(
    tmp_path: Path, registry: Registry
) -> None:
    both = helpers.suite(helpers.learning(), helpers.learning(learn_on_each=True))
    found = plan(both, tmp_path, registry)
    assert [g.on_each for g in found.learning] == [False] * 2 + [True] * 4
    assert [len(g.candidates) for g in found.learning] == [2, 2, 1, 1, 1, 1]
    assert len([t for trials in found.speed.values() for t in trials]) == 2


def test_a_filter_names_implementation_and_dtype(
    tmp_path: Path, registry: Registry
) -> None:
    text = EACH + FLOAT64
    found = plan(text, tmp_path, registry, "learning and wrong-bias and float64")
    assert learners(found) == [("wrong-bias", "float64", s) for s in (0, 1)]
    assert [(t.implementation, t.dtype) for t in found.certificates] == [
        ("wrong-bias", "float64")
    ]


# --- which implementations learn ------------------------------------------------------


def certificate(folder: Path, broken: str | None) -> TrialRecord:
    writer = fake_runs.Writer.create(folder)
    fake_runs.parity(writer, "my-gru", "gru", broken)
    (record,) = writer.run.records()
    return record


@pytest.mark.parametrize(
    ("found", "outcome", "why"),
    [
        ("certified", None, None),
        ("broken", "refused", "my-gru is not certified (1 of 4 checks broken)"),
        ("unavailable", "unavailable", "no module 'torch'"),
        ("crashed", "crashed", "no module 'torch'"),
        ("none", "failed", "my-gru has no certificate"),
    ],
)
def test_learning_is_refused_without_a_certificate_or_ends_as_the_certificate_did(
    found: str, outcome: str | None, why: str | None, tmp_path: Path
) -> None:
    record: TrialRecord | None = certificate(
        tmp_path / "run", "outputs" if found == "broken" else None
    )
    if found in ("unavailable", "crashed"):
        assert record is not None
        record = replace(record, outcome=found, reason="no module 'torch'", readings=())
    trial = replace(fake_runs.learning_trial("gru", 0), implementation="my-gru")
    asked = []

    def find(wanted: Trial) -> TrialRecord | None:
        asked.append(wanted)
        return None if found == "none" else record

    choice = admit(trial, find)
    assert choice.trial == trial
    assert choice.refused == why
    assert outcome is None or choice.outcome == outcome
    assert asked == [certificate_trial(trial)], "a timing is not asked for"


# --- a real run ----------------------------------------------------------------------


def execute(text: str, folder: Path, *more: str, code: int = 0) -> RunFolder:
    """Run a suite and append its standard error to `printed.txt`."""
    helpers.write(folder / "wrong.py", PLUGIN)
    helpers.write(folder / "each.toml", text)
    command = ["run", "each.toml", "-o", "run", "--plugin", "wrong.py", "-j", 2]
    found, _, printed = helpers.run(*command, *more, cwd=folder)
    assert found == code, printed
    with (folder / "printed.txt").open("a", encoding="utf-8") as file:
        file.write(printed)
    return RunFolder.open(folder / "run")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run in float32 and float64, with a correct and a wrong network."""
    folder = tmp_path_factory.mktemp("each")
    short = (EACH + FLOAT64).replace("updates = 1200", "updates = 60")
    short = short.replace("evaluate_every = 400", "evaluate_every = 30")
    execute(short, folder, code=BROKEN)
    return folder


def test_every_certified_implementation_learns_and_the_other_is_refused(
    ran: Path,
) -> None:
    records = RunFolder.open(ran / "run").records()
    learned = [r for r in records if r.trial.measure == "learning"]
    ended = {
        (r.trial.implementation, r.trial.dtype, r.trial.seed): r.outcome
        for r in learned
    }
    assert ended == {
        (name, dtype, seed): "ok" if name == "numpy-reference" else "refused"
        for name in ("numpy-reference", "wrong-bias")
        for dtype in ("float32", "float64")
        for seed in (0, 1)
    }
    reasons = {r.reason for r in learned if r.outcome == "refused"}
    assert all("wrong-bias is not certified (" in str(reason) for reason in reasons)
    info = json.loads((ran / "run" / "run.json").read_text(encoding="utf-8"))
    assert info["choices"] == {}, "nothing was chosen"


def test_progress_counts_and_names_every_trial(ran: Path) -> None:
    printed = (ran / "printed.txt").read_text(encoding="utf-8")
    lines = [line for line in printed.splitlines() if line.startswith("[")]
    counted = [line.split("]")[0] for line in lines]
    assert sorted(counted) == sorted(f"[{n}/12" for n in range(1, 13))
    named = [line.split("] ")[1].split(":")[0] for line in lines]
    assert len(set(named)) == 12, "no two are printed under one name"


def test_finished_trials_are_neither_run_nor_refused_again(ran: Path) -> None:
    before = helpers.snapshot(ran / "run" / "trials")
    text = (ran / "each.toml").read_text(encoding="utf-8")
    execute(text, ran, code=BROKEN)
    assert helpers.snapshot(ran / "run" / "trials") == before


def test_a_trial_that_two_sections_ask_for_runs_once(tmp_path: Path) -> None:
    short = {"seeds": [0], "updates": 40}
    each = helpers.learning(learn_on_each=True, **short)
    text = helpers.suite(helpers.learning(**short), each)
    run = execute(text, tmp_path, "-k", "numpy-reference")
    (folder,) = run.trials.glob("learning-*")
    assert [f.name for f in folder.glob("attempt-*")] == ["attempt-001"]
    printed = (tmp_path / "printed.txt").read_text(encoding="utf-8")
    assert printed.count("learning rnn numpy-reference") == 1


def test_a_run_that_was_stored_without_a_new_key_can_be_resumed(
    tmp_path: Path, registry: Registry
) -> None:
    file = helpers.write(tmp_path / "tiny.toml", helpers.TINY)
    suite = load_suite(str(file), registry)
    stored = suite.model_dump(mode="json")
    del stored["learning"][0]["learn_on_each"]
    run = RunFolder.create(tmp_path / "run")
    run.write_info({"suite": stored, "device": "cpu"})
    execution = Execution(suite, registry, run, "cpu")
    assert len(execution.plan().learning) == 2
    stored["learning"][0]["updates"] = 7
    run.write_info({"suite": stored, "device": "cpu"})
    with pytest.raises(MisuseError, match=r"learning\[0\]\.updates = 7, now 1200"):
        execution.plan()


def test_progress_counts_crashed_trials_with_their_certificates(
    tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(EACH + FLOAT64, tmp_path, registry)
    run = RunFolder.create(tmp_path / "run")
    todo = [planned(g.candidates[0], registry, run) for g in found.learning]
    with helpers.progress(registry) as progress:
        progress.expect(found)
        for each in todo:
            progress.started(each)
            progress.finished(each, Answer("crashed", "SIGSEGV"))
    printed = capsys.readouterr().err
    # 4 certificates and 8 learning trials
    assert [f"[{n}/12]" in printed for n in range(1, 9)] == [True] * 8
