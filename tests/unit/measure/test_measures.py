"""Learning, gradients and speed: rules, closed forms, and mistakes to notice."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.contract import (
    Batch,
    FrameworkState,
    Handle,
    Optimizer,
    Tally,
    Updates,
)
from harness.errors import PluginError, RefusedError
from harness.machine import clock as timing
from harness.measure import readback
from harness.measure.gradients import gradient_ratios, horizon, measure_gradients
from harness.measure.learning.readback import LearningReadBack
from harness.measure.learning.training import Observer, measure_learning
from harness.measure.problem import Problem, initial_weights
from harness.measure.readback import Reference
from harness.measure.speed import meter as measured_speed
from harness.measure.speed import phases as measured_phases
from harness.measure.speed.meter import SpeedMeter
from harness.registry import Registry
from harness.runner.given import own
from harness.store import Reading
from harness.trial import LearningSettings, SpeedSettings
from implementations.numpy_reference.network import NumpyNetwork
from tests import helpers
from tests.helpers import REGISTRY, needs_torch

LEARNING = replace(
    helpers.LEARNING,
    optimizer=Optimizer(learning_rate=0.01),
    settings=LearningSettings(45, evaluate_every=10, evaluate_sequences=100),
)
SPEED = replace(
    LEARNING,
    measure="speed",
    optimizer=Optimizer(learning_rate=1e-3, epsilon=1e-3, clip_norm=0.01),
    settings=SpeedSettings(rounds=2, readings=2),
)


def learn(problem: Problem) -> tuple[Any, list[Reading]]:
    events: list[Reading] = []
    return measure_learning(problem, Observer(events.append)), events


def whole(found: Any) -> dict[tuple[str, str], Any]:
    return {(r.split, n): v for r in found.readings for n, v in r.values.items()}


# --- learning ------------------------------------------------------------------------


def test_every_update_and_every_evaluation_is_on_the_curve() -> None:
    found, events = learn(Problem(REGISTRY, LEARNING))
    trained = [x for e in events if e.split == "train" for x in e.x]  # type: ignore[union-attr]
    held_out = [e.x for e in events if e.split == "held_out"]
    assert trained == list(range(1, 46))
    assert held_out == [0, 10, 20, 30, 40, 45]
    assert whole(found)["outcome", "updates"] == 45
    assert whole(found)["floor", "loss"] == pytest.approx(1 / 6)


def test_a_curve_depends_on_the_trial_alone() -> None:
    first = [e.to_json() for e in learn(Problem(REGISTRY, LEARNING))[1]]
    again = [e.to_json() for e in learn(Problem(REGISTRY, LEARNING))[1]]
    other = [
        e.to_json() for e in learn(Problem(REGISTRY, replace(LEARNING, data_seed=1)))[1]
    ]
    assert first == again
    assert first != other
    # The first evaluation is before any training: the data seed is not in it.
    assert first[0] == other[0]


class SolvedWhen:
    """A task whose rule is a script: one answer for each evaluation."""

    def __init__(self, task: Any, script: str) -> None:
        self.task, self.script = task, iter(script)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
        return next(self.script) == "y"


@pytest.mark.parametrize(
    ("script", "solved", "at", "updates"),
    [
        ("nyyyyyy", 1, 10, 30),  # it stops at the third of three in a row
        ("nyynyyy", 1, 40, 45 + 15),
        ("nyynyyn", 0, None, 60),
        ("yyynnnn", 1, 0, 20),
    ],
)
def test_solved_is_the_first_of_three_evaluations_in_a_row(
    script: str, solved: int, at: int | None, updates: int
) -> None:
    settings = replace(LEARNING.settings, updates=60)
    problem = Problem(REGISTRY, replace(LEARNING, settings=settings))
    problem.task = SolvedWhen(problem.task, script)  # type: ignore[assignment]
    values = whole(learn(problem)[0])
    assert values["outcome", "solved"] == solved
    assert values.get(("outcome", "updates_to_solve")) == at
    assert values["outcome", "updates"] == updates


class Exploding:
    """A network whose loss is not finite after some updates."""

    def __init__(self, network: Any, at: int, loss: float, norm: float) -> None:
        self.network, self.at, self.bad = network, at, (loss, norm)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def train_steps(self, placed: Any) -> Any:
        done = self.network.train_steps(placed).read()
        losses, norms = done.losses.copy(), done.gradient_norms.copy()
        if len(losses) > self.at:
            losses[self.at], norms[self.at] = self.bad
        return Handle(lambda: None, lambda: Updates(losses, norms))


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (np.nan, np.nan, "loss became NaN at update 5"),
        (np.inf, 1.0, "loss became infinite at update 5"),
        (1.0, np.nan, "gradient became NaN at update 5"),
        (1.0, np.inf, "gradient became infinite at update 5"),
    ],
)
def test_a_loss_that_is_not_finite_is_the_outcome_diverged_with_its_curve(
    loss: float, norm: float, reason: str
) -> None:
    problem = Problem(REGISTRY, LEARNING)
    network = Exploding(problem.trainable_network(), 4, loss, norm)
    problem.trainable_network = lambda: network  # type: ignore[method-assign,assignment]
    found, events = learn(problem)
    assert (found.outcome, found.reason) == ("diverged", reason)
    curve = next(e for e in events if e.split == "train")
    assert len(curve.values["loss"]) == 10  # up to the next evaluation
    assert whole(found)["outcome", "solved"] == 0


def test_a_held_out_loss_that_is_not_finite_is_diverged_too() -> None:
    problem = Problem(REGISTRY, LEARNING)

    class Scores(SolvedWhen):
        def score(self, outputs: Any, batch: Batch) -> dict[str, Tally]:
            found = self.task.score(outputs, batch)
            if next(self.script) == "x":
                found["loss"] = Tally(float("nan"), 1)
            return found  # type: ignore[no-any-return]

        def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
            return False

    problem.task = Scores(problem.task, "....ox")  # type: ignore[assignment]
    found, _ = learn(problem)
    assert found.outcome == "diverged"
    assert found.reason == "held-out loss became NaN at update 45"


# --- what is observed during a timing -------------------------------------------------


class Seconds:
    """A clock that takes no time to read, and calls that take the given times."""

    def __init__(self, *taken_s: float) -> None:
        self.now_s, self.taken_s, self.looks = 0.0, iter(taken_s), 0

    def perf_counter(self) -> float:
        self.looks += 1
        return self.now_s

    def call(self) -> None:
        self.now_s += next(self.taken_s)


def test_the_pieces_of_a_reading_add_up_to_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = Seconds(1.0, 5.0, 3.0)
    monkeypatch.setattr(timing, "time", few)
    found = timing.reading(few.call, 3)
    assert found.call_s == 3.0
    np.testing.assert_array_equal(found.pieces, [[1, 1.0], [1, 5.0], [1, 3.0]])

    many = Seconds(*[1.0] * 40, 9.0, *[1.0] * 9)
    monkeypatch.setattr(timing, "time", many)
    found = timing.reading(many.call, 50)
    assert found.call_s == 58 / 50
    assert found.pieces.tolist() == [[1, 1.0]] * 32 + [[18, 26.0]]
    assert many.looks == 34


def test_taking_a_reading_in_pieces_adds_no_noticeable_time() -> None:
    """A reading lasts at least 3 ms, and 30 µs are a hundredth of it."""

    def nothing() -> None:
        pass

    whole_s = min(250 * timing.reading_s(nothing, 250) for _ in range(300))
    pieces_s = min(250 * timing.reading(nothing, 250).call_s for _ in range(300))
    assert pieces_s - whole_s < 15e-6


class PutAside:
    """Two clocks that agree, read by a process that is sometimes suspended.

    Attributes:
        aside: Numbers of the readings after which the process is suspended for 5 ms.
    """

    def __init__(self, *aside: int, always: bool = False) -> None:
        self.now_s = self.step_s = 0.0
        self.looks, self.aside, self.always = 0, aside, always

    def _look(self) -> float:
        found = self.now_s
        self.now_s += 5e-3 if self.looks in self.aside or self.always else 1e-7
        self.looks += 1
        return found

    def perf_counter(self) -> float:
        return self._look() + self.step_s

    def clock_gettime(self, clock: int) -> float:
        return self._look()

    CLOCK_MONOTONIC_RAW = 4


@pytest.mark.parametrize("aside", [(0,), (1,), (0, 3), (1, 3, 4), (3,), (4,), (3, 7)])
def test_a_process_paused_between_two_clocks_is_not_a_stepped_clock(
    aside: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = PutAside(*aside)
    monkeypatch.setattr(timing, "time", clocks)
    check = timing.ClockCheck()
    for _ in range(3):
        clocks.now_s += 0.05
        check.look()
    assert not check.wrong
    clocks.step_s = 0.01
    check.look()
    assert check.wrong


def test_a_look_at_the_clocks_that_is_always_disturbed_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = PutAside()
    monkeypatch.setattr(timing, "time", clocks)
    check = timing.ClockCheck()
    clocks.always = True
    check.look()
    assert clocks.looks < 100
    clocks.always = False
    check.look()
    assert not check.wrong
    # A step during disturbed looks is found by the next undisturbed one.
    clocks.always, clocks.step_s = True, 0.01
    check.look()
    assert not check.wrong
    clocks.always = False
    check.look()
    assert check.wrong


class ScriptedProbe:
    """A device probe that reports the given states, one after another."""

    def __init__(self, *states: FrameworkState) -> None:
        self.states = iter(states)

    def state(self) -> FrameworkState:
        return next(self.states)

    def timer(self) -> None: ...


def test_the_state_of_the_framework_is_read_around_every_turn() -> None:
    problem = Problem(REGISTRY, SPEED)
    # The first two are asked for before the network is built.
    states = [(5, 1), (5, 1), (7, 1), (7, 1), (7, 1), (9, 1), (9, 1), (9, 2)]
    probe = ScriptedProbe(*(FrameworkState(*state) for state in states))
    problem.runner.probe = lambda *_: probe  # type: ignore[attr-defined]
    meter = SpeedMeter(problem)
    meter.warm_up()
    for _ in range(3):
        meter.turn("forward")
    turns = meter._phases["forward"].turns
    assert turns.built == [False, True, False]
    assert turns.set_threads == [1, 1, 2]


@pytest.mark.parametrize(
    "error", [RefusedError("computes on GPUs"), PluginError("mine", "has no state()")]
)
def test_a_timing_needs_no_usable_probe(error: Exception) -> None:
    def refuse(*_: str) -> None:
        raise error

    problem = Problem(REGISTRY, SPEED)
    problem.runner.probe = refuse  # type: ignore[attr-defined]
    meter = SpeedMeter(problem)
    meter.warm_up()
    meter.turn("forward")
    assert meter._phases["forward"].turns.built == [False]


# --- read-back of learning ------------------------------------------------------------


class Changed:
    """A network that reads zeros for all sequences from number `beyond` on."""

    def __init__(self, network: Any, beyond: int) -> None:
        self.network, self.beyond = network, beyond

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def place(self, batch: Batch) -> Any:
        inputs = batch.inputs.copy()
        inputs[self.beyond :] = 0
        return self.network.place(replace(batch, inputs=inputs))


class Truncated:
    """A cell that stops the gradient at every `every` time steps."""

    def __init__(self, cell: Any, every: int) -> None:
        self.cell, self.every, self.time = cell, every, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def step(self, weights: Any, x: Any, state: Any) -> Any:
        cut = self.time > 0 and self.time % self.every == 0
        self.time += 1
        state, saved = self.cell.step(weights, x, state)
        return state, (cut, saved)

    def step_backward(self, weights: Any, saved: Any, d_state: Any) -> Any:
        cut, inner = saved
        d_weights, d_x, before = self.cell.step_backward(weights, inner, d_state)
        if cut:
            before = tuple(np.zeros_like(part) for part in before)
        return d_weights, d_x, before


def truncated(problem: Problem, every: int) -> Any:
    cell = Truncated(problem.cell, every)

    class Network(NumpyNetwork):
        def _trace(self, *arguments: Any) -> Any:
            cell.time = 0
            return super()._trace(*arguments)

    return Network(problem.spec, cell, "cpu")


def with_network(problem: Problem, network: Any) -> Problem:
    problem.trainable_network = lambda: network  # type: ignore[method-assign]
    return problem


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("implementation", ["numpy-reference", "torch-native"])
def test_the_read_back_of_a_correct_network_is_ok(
    cell: str, implementation: str
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    trial = replace(LEARNING, implementation=implementation, cell=cell, batch=32)
    values = whole(learn(Problem(REGISTRY, trial))[0])
    assert values["readback", "ok"] == 1
    assert 0 < values["readback", "error"] < 1e-5
    assert values["readback", "tolerance"] == 1e-4


@pytest.mark.parametrize(
    ("beyond", "wrong"), [(16, {"outputs", "layer0.w_ih"}), (99, {"outputs"})]
)
def test_a_network_that_is_wrong_for_large_batches_is_noticed(
    beyond: int, wrong: set[str]
) -> None:
    """A training batch has 32 sequences, a held-out one 100."""
    problem = Problem(REGISTRY, replace(LEARNING, batch=32))
    found, _ = learn(with_network(problem, Changed(own(problem.network()), beyond)))
    assert whole(found)["readback", "ok"] == 0
    assert found.facts["read_back_at"].split(": ")[1] in wrong
    assert found.outcome == "ok", "what was learned is kept, and marked"


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"])
@pytest.mark.parametrize(
    ("task", "length"),
    [("adding", 250), pytest.param("copy-memory", 150, marks=pytest.mark.long)],
)
def test_a_gradient_cut_short_at_128_time_steps_is_noticed(
    cell: str, task: str, length: int
) -> None:
    settings = replace(LEARNING.settings, updates=1)
    trial = replace(LEARNING, cell=cell, task=task, length=length, settings=settings)
    problem = Problem(REGISTRY, trial)
    values = whole(learn(with_network(problem, truncated(problem, 128)))[0])
    assert values["readback", "ok"] == 0
    assert values["readback", "error"] > 1e-2
    problem = Problem(REGISTRY, trial)
    values = whole(learn(with_network(problem, truncated(problem, 1000)))[0])
    assert values["readback", "ok"] == 1


class WrongOnceTrained:
    """A network that computes wrongly unless the weights are `initial`."""

    def __init__(self, network: Any, initial: list[Any]) -> None:
        self.network, self.initial = network, initial

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def load_weights(self, weights: Any) -> None:
        known = any(
            np.array_equal(weights["readout.w"], drawn) for drawn in self.initial
        )
        changed = {n: w if known else 1.1 * w for n, w in weights.items()}
        self.network.load_weights(changed)


def test_a_network_that_is_wrong_once_it_is_trained_is_noticed() -> None:
    problem = Problem(REGISTRY, LEARNING)
    initial = [problem.initial_weights()["readout.w"]]
    network = WrongOnceTrained(problem.network(), initial)
    found, _ = learn(with_network(problem, network))
    assert whole(found)["readback", "ok"] == 0
    assert found.facts["read_back_at"].startswith("trained: ")


def test_the_read_back_allows_more_if_the_last_digit_of_the_weights_decides() -> None:
    """A tanh RNN with large weights is chaotic: rounding grows with every time step."""
    problem = Problem(REGISTRY, replace(LEARNING, cell="rnn", length=60))
    chaotic = problem.initial_weights()
    chaotic["layer0.w_hh"] *= 2.5
    wrong = {**chaotic, "layer0.b": chaotic["layer0.b"] + 0.1}
    batch = problem.batch("held_out", 0, 20)

    def checked(weights: Any, computing: Any) -> LearningReadBack:
        network: Any = problem.network()
        network.load = network.load_weights
        network.load_weights = lambda _: network.load(computing)
        found = LearningReadBack(problem, network, (batch, network.place(batch)))
        found.check("here", weights)
        return found

    right = checked(chaotic, chaotic).found
    assert right.ok
    assert right.error > 1e-4, "beyond what is allowed elsewhere"
    mild = problem.initial_weights()
    assert not checked(mild, {**mild, "layer0.b": wrong["layer0.b"]}).found.ok


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize(
    "task", [pytest.param("adding", marks=pytest.mark.long), "copy-memory"]
)
@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        ("moments-not-loaded", 0.1),
        ("moments-reset", 0.1),
        ("capped-learning-rate", 0.5),
        ("floored-epsilon", 0.2),
        ("loose-clip-ignored", 0.2),
    ],
)
def test_an_optimiser_that_is_wrong_for_the_constants_of_the_trial_is_noticed(
    mistake: str, error: float, task: str
) -> None:
    """Learning rate, epsilon and clip norm differ from those of the certificate."""
    registry = Registry.discover([helpers.PLUGINS / "sabotage_optimizers.py"])
    assert registry.problems == []
    trial = replace(
        LEARNING,
        implementation=f"torch-{mistake}",
        task=task,
        hidden_size=32,
        batch=32,
        optimizer=Optimizer(learning_rate=0.01, clip_norm=1.0),
        settings=replace(LEARNING.settings, updates=1),
    )
    found, _ = learn(Problem(registry, trial))
    values = whole(found)
    assert values["readback", "ok"] == 0
    assert error < values["readback", "error"] < 10
    assert values["readback", "tolerance"] == 1e-2
    assert ": change of the weights" in found.facts["read_back_at"]


def test_an_update_that_is_lost_to_rounding_is_not_a_mistake() -> None:
    """In float32 a weight near 0.1 changes in steps of 7e-9."""
    trial = replace(LEARNING, optimizer=Optimizer(name="sgd", learning_rate=1e-7))
    values = whole(learn(Problem(REGISTRY, trial))[0])
    assert values["readback", "ok"] == 1
    assert values["readback", "error"] > 1e-2, "beyond what is allowed elsewhere"


def test_resumed_learning_has_the_results_of_undisturbed_learning() -> None:
    undisturbed, _ = learn(Problem(REGISTRY, LEARNING))
    kept: list[Any] = []
    asked = iter([False, False, True])
    observer = Observer(
        emit=lambda reading: None,
        checkpoint=lambda *checkpoint: kept.append(checkpoint),
        is_stopped=lambda: next(asked),
    )
    assert measure_learning(Problem(REGISTRY, LEARNING), observer).outcome == "stopped"
    state = json.loads(json.dumps(kept[-1][0]))
    resumed = measure_learning(
        Problem(REGISTRY, LEARNING),
        Observer(lambda reading: None, start=(state, kept[-1][1])),
    )
    assert resumed.readings == undisturbed.readings
    assert resumed.facts == undisturbed.facts
    for name, tensor in undisturbed.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], tensor)


def test_the_reference_takes_a_large_batch_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem(REGISTRY, replace(LEARNING, task="copy-memory", batch=7))
    batch = problem.batch("train", 0, 7)
    scored = batch.scored.copy()
    scored[:3] = False  # a part without scored positions
    scored[5, :4] = False
    batch = replace(batch, scored=scored)
    found = []
    for most in (2**22, 3 * 8 * problem.time_steps):
        monkeypatch.setattr(readback, "MOST_STATES", most)
        reference = Reference(problem)
        reference.load(problem.initial_weights())
        found.append(
            {"outputs": reference.outputs(batch), **reference.loss_and_gradients(batch)}
        )
    whole_batch, in_parts = found
    for name, tensor in whole_batch.items():
        np.testing.assert_allclose(in_parts[name], tensor, rtol=1e-12, atol=1e-15)


# --- data and initial values ---------------------------------------------------------


def test_a_batch_depends_only_on_task_split_data_seed_and_index() -> None:
    problem = Problem(REGISTRY, LEARNING)
    first = problem.batch("train", 3, 8)
    problem.batch("train", 9, 8)
    lstm = Problem(REGISTRY, replace(LEARNING, cell="lstm", seed=5, hidden_size=4))
    np.testing.assert_array_equal(first.inputs, problem.batch("train", 3, 8).inputs)
    np.testing.assert_array_equal(first.inputs, lstm.batch("train", 3, 8).inputs)
    for other in (
        problem.batch("train", 4, 8),
        problem.batch("held_out", 3, 8),
        Problem(REGISTRY, replace(LEARNING, data_seed=1)).batch("train", 3, 8),
    ):
        assert not np.array_equal(first.inputs, other.inputs)


def test_every_seed_has_the_same_held_out_batches() -> None:
    one = Problem(REGISTRY, LEARNING).batch("held_out", 0, 8)
    other = Problem(REGISTRY, replace(LEARNING, data_seed=1)).batch("held_out", 0, 8)
    np.testing.assert_array_equal(one.inputs, other.inputs)


def test_the_initial_values_of_a_layer_do_not_depend_on_other_layers() -> None:
    problem = Problem(REGISTRY, LEARNING)
    two = replace(problem.spec, num_layers=2)
    one = initial_weights(problem.spec, problem.cell, "canonical", 0, 10)
    both = initial_weights(two, problem.cell, "canonical", 0, 10)
    for name, tensor in one.items():
        np.testing.assert_array_equal(both[name], tensor)
    assert not np.array_equal(both["layer1.w_hh"], both["layer0.w_hh"])


@needs_torch
def test_one_seed_gives_every_framework_the_same_values() -> None:
    found = []
    for name in ("numpy-reference", "torch-native"):
        problem = Problem(REGISTRY, replace(LEARNING, implementation=name))
        network = problem.network()
        network.load_weights(problem.initial_weights())
        found.append(network.weights())
    for name, tensor in found[0].items():
        np.testing.assert_array_equal(found[1][name], tensor)


def test_parameters_are_counted_as_in_each_framework() -> None:
    found = Problem(REGISTRY, replace(LEARNING, hidden_size=32)).parameters()
    # 3 (32 * 2 + 32 * 32) weights; biases 3 * 32 + 32, 6 * 32 and 6 * 32; readout 33.
    assert found == {
        "canonical": 3264 + 128 + 33,
        "torch": 3264 + 192 + 33,
        "keras": 3264 + 192 + 33,
    }


# --- gradients -----------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize(("task", "length"), [("adding", 12), ("copy-memory", 4)])
def test_ratios_agree_with_autograd_through_an_unrolled_loop(
    task: str, length: int
) -> None:
    """torch keeps the total gradient of every state of a Python loop."""
    import torch

    options = {"symbols": 3} if task == "copy-memory" else {}
    trial = replace(
        LEARNING, measure="gradients", task=task, task_options=options, length=length
    )
    problem = Problem(REGISTRY, trial)
    weights = problem.initial_weights()
    found = gradient_ratios(problem, weights)["loss"]

    assert problem.task is not None
    batch = problem.batch("gradients", 0, 64)
    cell = torch.nn.GRUCell(problem.spec.input_size, 8, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor(weights["layer0.w_ih"].reshape(24, -1)))
        cell.weight_hh.copy_(torch.tensor(weights["layer0.w_hh"].reshape(24, -1)))
        cell.bias_ih.copy_(torch.tensor(weights["layer0.b"].reshape(-1)))
        cell.bias_hh.zero_()
        cell.bias_hh[16:] = torch.tensor(weights["layer0.b_hn"])
    x = torch.tensor(batch.inputs)
    if task == "copy-memory":
        x = torch.nn.functional.one_hot(x, problem.spec.input_size)
    readout = problem.task.first_recalled(length=length)
    last = readout if task == "copy-memory" else x.shape[1] - 1
    h = torch.zeros(64, 8, dtype=torch.float64, requires_grad=True)
    states = [h]
    for t in range(last + 1):
        h = cell(x[:, t].to(torch.float64), h)
        h.retain_grad()
        states.append(h)
    output = h @ torch.tensor(weights["readout.w"]).T
    output = output + torch.tensor(weights["readout.b"])
    target = torch.tensor(batch.targets[:, readout])
    if task == "copy-memory":
        loss = torch.nn.functional.cross_entropy(output, target, reduction="sum")
    else:
        loss = ((output - target) ** 2).sum()
    loss.backward()
    norms = torch.stack([s.grad.norm(dim=1) for s in reversed(states)])
    expected = (norms / norms[0]).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_linear_orthogonal_rnn_carries_the_whole_gradient() -> None:
    """For zero inputs and biases tanh is the identity: J is orthogonal and R is 1."""
    trial = replace(LEARNING, measure="gradients", cell="rnn")
    problem = Problem(REGISTRY, trial)
    weights = problem.initial_weights()
    weights["layer0.w_ih"][:] = 0
    for ratio in gradient_ratios(problem, weights).values():
        np.testing.assert_allclose(ratio, 1, rtol=1e-12)


def test_a_half_open_gate_halves_the_gradient_at_each_time_step() -> None:
    """A GRU with zero weights: z = 1/2, the candidate is 0, so J = 1/2."""
    trial = replace(LEARNING, measure="gradients")
    problem = Problem(REGISTRY, trial)
    weights = problem.initial_weights()
    for name in ("layer0.w_ih", "layer0.w_hh", "layer0.b"):
        weights[name][:] = 0
    ratio = gradient_ratios(problem, weights)["loss"]
    lags = np.arange(len(ratio))
    np.testing.assert_allclose(ratio, np.repeat(0.5 ** lags[:, None], 64, 1))
    found = measure_gradients(problem, weights)
    assert whole(found)["trained", "horizon_loss"] == 9  # 2^-9 > 1e-3 > 2^-10


def test_the_horizon_is_the_largest_lag_above_a_thousandth() -> None:
    assert horizon(np.array([1, 0.5, 1e-4, 2e-3, 1e-4])) == 3
    assert horizon(np.array([1, 1e-4])) == 0


# --- speed ---------------------------------------------------------------------------


def speed(problem: Problem) -> dict[tuple[str, str], Any]:
    meter = SpeedMeter(problem)
    meter.warm_up()
    for _ in range(2):
        for phase in meter.phases:
            assert len(meter.turn(phase)) == 2
    return whole(meter.finish())


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["numpy-reference", "torch-native"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_results_of_the_timed_calls_are_correct(
    implementation: str, cell: str
) -> None:
    if (reason := REGISTRY.unavailable(implementation)) is not None:
        pytest.skip(reason)
    trial = replace(SPEED, implementation=implementation, cell=cell)
    found = speed(Problem(REGISTRY, trial))
    assert found["readback", "ok"] == 1
    assert 0 < found["readback", "error"] < 1e-5
    for phase in ("forward", "loss_and_gradients", "train_step"):
        low, time_s, high = (
            found[phase, name] for name in ("time_low_s", "time_s", "time_high_s")
        )
        assert 0 < low <= time_s <= high
        assert found[phase, "tokens_per_s"] == pytest.approx(8 * 10 / time_s)


class Lazy:
    """A network that returns the result of the first call again."""

    def __init__(self, network: Any, lazy: str) -> None:
        self.network, self.lazy = network, lazy
        self.first: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.network, name)
        if name != self.lazy:
            return found

        def call(argument: Any) -> Any:
            if name not in self.first:
                self.first[name] = found(argument)
            return self.first[name]

        return call


@pytest.mark.slow
@pytest.mark.parametrize("lazy", ["forward", "loss_and_gradients", "train_steps"])
def test_a_timed_call_that_computes_nothing_is_noticed(
    lazy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such a call is short, so there are many, and the reference repeats them all.
    monkeypatch.setattr(measured_speed, "MOST_LOOPS", 10)
    problem = Problem(REGISTRY, SPEED)
    network = Lazy(own(problem.network()), lazy)
    problem.network = lambda: network  # type: ignore[method-assign,assignment]
    found = speed(problem)
    assert found["readback", "ok"] == 0
    assert found["readback", "error"] > 1e-5


class Deferring:
    """A network that only queues calls, and computes when a result is read."""

    def __init__(self, network: Any, phase: str) -> None:
        self.network, self.phase = network, phase
        self.waiting: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.network, name)
        if name == self.phase:
            return lambda argument: self.defer(found, argument)
        if name in ("weights", "load_weights"):
            self.compute()
        return found

    def defer(self, found: Any, argument: Any) -> Any:
        if self.phase != "train_steps":
            self.waiting.clear()  # earlier results will not be read
        self.waiting.append(lambda: found(argument))
        return Handle(lambda: None, lambda: self.compute().read())

    def compute(self) -> Any:
        while self.waiting:
            self.done = self.waiting.pop(0)()
        return self.done if hasattr(self, "done") else None


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["forward", "loss_and_gradients", "train_steps"])
@pytest.mark.parametrize("small", [False, True])
def test_deferring_the_computation_until_it_is_read_is_noticed(
    phase: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Queuing is short, so there are many calls, and the reference repeats them all.
    monkeypatch.setattr(measured_speed, "MOST_LOOPS", 10)
    # At a small shape computing may take less time than copying some tensors.
    trial = replace(SPEED, batch=4) if small else SPEED
    if not small:
        trial = replace(SPEED, length=50, hidden_size=32, batch=32)
    problem = Problem(REGISTRY, trial)
    network = Deferring(own(problem.network()), phase)
    problem.network = lambda: network  # type: ignore[method-assign,assignment]
    meter = SpeedMeter(problem)
    meter.warm_up()
    for _ in range(3):
        for name in meter.phases:
            meter.turn(name)
    measured = meter.finish()
    (found,) = [r for r in measured.readings if r.split == "readback"]
    assert found.values["ok"] == 0
    assert "computed when it was read" in measured.facts["read_back_at"]


class Remembering:
    """A network that stores its results and returns them for the same batch again.

    Args:
        keeps: The `last` result, those of one `turn`, or `all` for any weights.
        by: How batches are distinguished: by `identity` or by `values`.
    """

    def __init__(self, network: Any, keeps: str, by: str) -> None:
        self.network, self.keeps, self.by = network, keeps, by
        self.answers: dict[tuple[Any, ...], Any] = {}
        self.weights_key = b""
        self.asked = self.computed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def load_weights(self, weights: Any) -> None:
        self.network.load_weights(weights)
        self.weights_key = b"".join(tensor.tobytes() for tensor in weights.values())
        if self.keeps != "all":
            self.answers.clear()

    def forward(self, placed: Any) -> Any:
        return self.remember("forward", placed)

    def loss_and_gradients(self, placed: Any) -> Any:
        return self.remember("loss_and_gradients", placed)

    def remember(self, name: str, placed: Any) -> Any:
        batch = id(placed) if self.by == "identity" else placed.x.tobytes()
        key = (name, self.weights_key, batch)
        self.asked += 1
        if key not in self.answers:
            self.computed += 1
            if self.keeps == "last":
                self.answers.clear()
            self.answers[key] = getattr(self.network, name)(placed)
        return self.answers[key]


@pytest.mark.parametrize("keeps", ["last", "turn", "all"])
@pytest.mark.parametrize("by", ["identity", "values"])
def test_answers_of_earlier_calls_cannot_be_reused(keeps: str, by: str) -> None:
    settings = replace(SPEED.settings, phases=("forward", "loss_and_gradients"))
    problem = Problem(REGISTRY, replace(SPEED, settings=settings))
    network = Remembering(own(problem.network()), keeps, by)
    problem.network = lambda: network  # type: ignore[method-assign,assignment]
    meter = SpeedMeter(problem)
    meter.warm_up()
    network.asked = network.computed = 0
    for _ in range(3):
        for phase in meter.phases:
            meter.turn(phase)
    assert network.asked >= 3 * 2 * 3
    assert network.computed == network.asked
    assert whole(meter.finish())["readback", "ok"] == 1


def test_large_batches_repeat_after_eight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measured_phases, "MOST_BYTES", 1000)
    problem = Problem(REGISTRY, SPEED)
    network = Remembering(own(problem.network()), "all", "values")
    problem.network = lambda: network  # type: ignore[method-assign,assignment]
    assert speed(problem)["readback", "ok"] == 1
    assert len({batch for name, _, batch in network.answers if name == "forward"}) == 8


def test_warm_up_continues_until_calls_get_no_faster() -> None:
    durations = iter([0.03, 0.02, 0.012, 0.008, 0.004] + [0.002] * 100)
    calls = []

    def call() -> None:
        import time

        duration = next(durations)
        calls.append(duration)
        time.sleep(duration)

    found = timing.warm_up(call)
    assert found.first_call_s >= 0.03
    assert found.stationary
    assert calls[-1] == 0.002
    assert len(calls) >= 8


def test_tallies_add_up() -> None:
    assert (Tally(1.0, 2) + Tally(3.0, 2)).mean == 1.0


def test_a_batch_reports_whether_it_is_padded() -> None:
    batch = Batch(np.zeros((2, 3, 1)), np.array([3, 3]), np.zeros(1), np.ones(1, bool))
    assert not batch.padded
    assert replace(batch, lengths=np.array([3, 2])).padded


class DeviceClock:
    """A clock of a device that shows one second, then two, then three."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []

    def start(self) -> None:
        self.begun_s = time.perf_counter()

    def stop(self) -> float:
        self.wall_s.append(time.perf_counter() - self.begun_s)
        return float(len(self.wall_s))


def test_a_device_is_timed_by_its_own_clock_and_the_wall_clock() -> None:
    settings = replace(SPEED.settings, phases=("forward",))
    meter = SpeedMeter(Problem(REGISTRY, replace(SPEED, settings=settings)))
    meter._stopwatch._timer = clock = DeviceClock()  # type: ignore[attr-defined]
    meter.warm_up()
    readings = [s for _ in range(3) for s in meter.turn("forward")]
    found = meter.finish()
    (device,) = [r.values["device_s"] for r in found.readings if "device_s" in r.values]
    loops = whole(found)["forward", "loops"]
    np.testing.assert_allclose(np.array(device) * loops, range(1, 7), rtol=1e-12)
    assert whole(found)["forward", "device_time_s"] == pytest.approx(np.median(device))
    # The device's clock runs while the wall clock does.
    assert np.all(np.array(readings) * loops <= clock.wall_s)


@pytest.mark.slow
def test_the_first_call_of_an_update_includes_that_of_its_gradients() -> None:
    problem = Problem(REGISTRY, SPEED)
    network, built = own(problem.network()), []
    whole_gradients = network.loss_and_gradients

    def building(placed: Any) -> Any:
        if not built:
            built.append(True)
            time.sleep(1)
        return whole_gradients(placed)

    network.loss_and_gradients = building  # type: ignore[method-assign]
    problem.network = lambda: network  # type: ignore[method-assign]
    found = speed(problem)
    for phase in ("loss_and_gradients", "train_step"):
        assert found[phase, "first_call_s"] > 1
        assert found[phase, "time_s"] < 1
    assert found["forward", "first_call_s"] < 1
