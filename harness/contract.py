"""What a plugin is: cells, tasks and networks, and what they exchange.

Shapes are written `[batch, time, input]`. `readouts` is the number of time steps at
which a network answers: `time` if it answers at every step, 1 if it answers at the last
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import ModuleType
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = dict[str, Array]
"""Canonical tensors by name: `layer0.w_ih`, `readout.w`; in a cell, `w_ih`."""
State = tuple[Array, ...]
"""One array for each state part: `[batch, hidden]` in a cell, `[layers, batch, hidden]`
in a network."""
Saved = Any
"""What a cell's step keeps for its backward step."""
Placed = Any
"""A batch on its device, in the form with which its network computes."""

ONE_HOT_LIMIT = 32
"""Vocabularies up to this size enter as one-hot vectors, larger ones are embedded."""


class Target(StrEnum):
    """What a task asks for, which also decides the loss.

    CLASS: one of `output_size` classes, cross-entropy in nats.
    REAL: `output_size` real numbers, mean squared error.
    """

    CLASS = "class"
    REAL = "real"


class Readout(StrEnum):
    """At which time steps a network answers."""

    EVERY = "every"
    LAST = "last"


@dataclass(frozen=True)
class Inputs:
    """The input of a time step: `size` reals, or one token of `size` kinds."""

    kind: Literal["reals", "tokens"]
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"inputs need a size of at least 1, not {self.size}")

    @property
    def embedded(self) -> bool:
        """Whether tokens enter through the canonical tensor `embedding`."""
        return self.kind == "tokens" and self.size > ONE_HOT_LIMIT


@dataclass(frozen=True)
class Quantity:
    """The unit of a measured value and the direction in which it is better."""

    unit: str
    better: Literal["lower", "higher", "neither"] = "neither"


@dataclass(frozen=True)
class Tally:
    """A sum over a number of scored items; tallies of parts of a batch add up."""

    total: float
    count: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> float:
        """The sum divided by the count."""
        return self.total / self.count


# --- cells ---------------------------------------------------------------------------


@dataclass(frozen=True)
class CellInfo:
    """What is known about a cell without computing it.

    Attributes:
        name: The registered name.
        gates: The blocks of `w_ih`, `w_hh` and `b` in canonical order.
        state_parts: ("h",) or ("h", "c"); the first is the layer's output.
        keep_bias: Tensor and row of the bias of the gate that keeps the state, or
            None if no gate does.
        source: The paper that defines the equations.
    """

    name: str
    gates: tuple[str, ...]
    state_parts: tuple[str, ...]
    keep_bias: tuple[str, int] | None
    source: str


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one recurrent layer; `chrono` spreads time constants to `time_steps`."""

    input_size: int
    hidden_size: int
    time_steps: int


class Cell(Protocol):
    """A recurrence: its canonical weights, their initial values and its cost.

    Weight matrices are stored gate by gate, `[gates, hidden, input]`.
    """

    @property
    def info(self) -> CellInfo:
        """Name, gates, state parts, source."""

    def weight_shapes(
        self, input_size: int, hidden_size: int
    ) -> dict[str, tuple[int, ...]]:
        """Return the shape of every canonical tensor, in a fixed order."""

    def initial_weights(
        self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
    ) -> Weights:
        """Draw float64 initial values by a named scheme, such as `canonical`."""

    def flops(self, input_size: int, hidden_size: int) -> int:
        """Count the forward operations of one sequence and time step."""

    def parameter_counts(self, input_size: int, hidden_size: int) -> dict[str, int]:
        """Count parameters: `canonical`, and as each framework counts them."""


class Steps(Protocol):
    """One time step of a layer and its backward step, in the dtype of the arguments."""

    def step(self, weights: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """Advance one time step: x [batch, input], state parts [batch, hidden]."""

    def step_backward(
        self, weights: Weights, saved: Saved, d_state: State
    ) -> tuple[Weights, Array, State]:
        """Return gradients with respect to the weights, x and the state before.

        It changes nothing that it is given, `saved` included: it may be called again.
        """


class ReferenceCell(Cell, Steps, Protocol):
    """A cell with a reference."""


Tensor = Any
"""An array of any framework."""


class Operations(Protocol):
    """A framework's operations for equations, besides +, -, *, / and slices."""

    def sigmoid(self, a: Tensor) -> Tensor:
        """Compute σ(a) = 1 / (1 + exp(-a))."""

    def tanh(self, a: Tensor) -> Tensor:
        """Compute the hyperbolic tangent."""

    def relu(self, a: Tensor) -> Tensor:
        """Compute max(a, 0), with the derivative 0 at 0."""

    def products(self, w: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Multiply v [batch, size] by w [gates, hidden, size]: W v for each gate."""


Equations = Callable[
    [Operations, Mapping[str, Tensor], Sequence[Tensor], tuple[Tensor, ...]],
    tuple[Tensor, ...],
]
"""One time step of a cell in the operations of any framework.

It is called with the operations, the canonical weights, a = W x + b [batch, hidden] for
each gate, and the state parts [batch, hidden]. It returns the new state. The caller
computes W x + b from `w_ih` [gates, hidden, input] and `b` [gates, hidden] for all time
steps at once, so that a cell with equations must have both tensors.
"""


# --- tasks ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskInfo:
    """What a network must know to fit a task, and what the task reports.

    Attributes:
        name: The registered name.
        inputs: The input of each time step.
        target: The kind of answer, which also decides the loss.
        output_size: Number of classes, or of reals.
        readout: When the network answers.
        scores: Every key of `score`, with its unit and direction; `loss` among them.
        headline: The score that a table shows first.
        source: The paper that defines the task.
    """

    name: str
    inputs: Inputs
    target: Target
    output_size: int
    readout: Readout
    scores: Mapping[str, Quantity]
    headline: str
    source: str


@dataclass(frozen=True)
class Batch:
    """Sequences with their targets.

    Attributes:
        inputs: float [batch, time, input], or int tokens [batch, time].
        lengths: int [batch]; a sequence is padded on the right beyond its length.
        targets: int [batch, readouts] or float [batch, readouts, output].
        scored: bool [batch, readouts]; the loss is the mean over these positions.
    """

    inputs: Array
    lengths: Array
    targets: Array
    scored: Array

    @property
    def size(self) -> int:
        """Number of sequences."""
        return int(self.inputs.shape[0])

    @property
    def time_steps(self) -> int:
        """Length of the padded sequences."""
        return int(self.inputs.shape[1])

    @property
    def padded(self) -> bool:
        """Whether any sequence is shorter than the others."""
        return bool((self.lengths != self.time_steps).any())


class Task(Protocol):
    """A sequence problem with a known floor; `rng` is its only source of randomness."""

    @property
    def info(self) -> TaskInfo:
        """Inputs, target, readout, scores."""

    def time_steps(self, length: int) -> int:
        """Return the sequence length of the task at `length`, its own parameter.

        Raises:
            ValueError: If the task has no sequences of that length.
        """

    def sample(self, rng: np.random.Generator, *, batch: int, length: int) -> Batch:
        """Draw a batch of problems."""

    def score(self, outputs: Array, batch: Batch) -> dict[str, Tally]:
        """Score outputs [batch, readouts, output]; the keys are `info.scores`."""

    def floor(self, *, length: int) -> dict[str, float]:
        """Return the scores of the best answer that ignores the input."""

    def solved(self, loss: float, scores: Mapping[str, float]) -> bool:
        """Say whether a held-out evaluation counts as solved."""

    def first_recalled(self, *, length: int) -> int:
        """Return the readout at which the first remembered answer is due."""


# --- networks ------------------------------------------------------------------------


@dataclass(frozen=True)
class Optimizer:
    """An optimiser with all its constants; every backend takes the same step as torch.

    Gradients are scaled by min(1, clip_norm / (norm + 1e-6)) with the norm over all
    tensors together; None clips nothing. `momentum` is for sgd, `beta1` and `beta2`
    for adam, `decay` for rmsprop.
    """

    name: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = 1e-3
    clip_norm: float | None = 1.0
    epsilon: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.999
    decay: float = 0.99
    momentum: float = 0.0


@dataclass(frozen=True)
class NetworkSpec:
    """Stacked recurrent layers of one cell, a linear readout, and how they are trained.

    Attributes:
        precision: `highest` computes everything in `dtype`.
        biases: `canonical` keeps a framework's redundant bias at zero and does not
            train it; `native` trains all biases of the framework.
    """

    cell: str
    inputs: Inputs
    hidden_size: int
    output_size: int
    readout: Readout
    target: Target
    num_layers: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    dtype: Literal["float32", "float64"] = "float32"
    precision: str = "highest"
    biases: Literal["canonical", "native"] = "canonical"

    def __post_init__(self) -> None:
        for name in ("hidden_size", "output_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, not {getattr(self, name)}"
                )

    @property
    def input_size(self) -> int:
        """Input width of the first layer; an embedding is `hidden_size` wide."""
        return self.hidden_size if self.inputs.embedded else self.inputs.size

    @property
    def layer_input_sizes(self) -> tuple[int, ...]:
        """Input width of every layer."""
        return (self.input_size, *[self.hidden_size] * (self.num_layers - 1))

    def readouts(self, time_steps: int) -> int:
        """Return at how many of the time steps the network answers."""
        return time_steps if self.readout is Readout.EVERY else 1

    def weight_shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """Return the shape of every canonical tensor of the network, in order."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.inputs.embedded:
            shapes["embedding"] = (self.inputs.size, self.input_size)
        for layer, width in enumerate(self.layer_input_sizes):
            for name, shape in cell.weight_shapes(width, self.hidden_size).items():
                shapes[f"layer{layer}.{name}"] = shape
        shapes["readout.w"] = (self.output_size, self.hidden_size)
        shapes["readout.b"] = (self.output_size,)
        return shapes


def layer_weights(weights: Weights, layer: int) -> Weights:
    """Return the tensors of one layer by their names in the cell."""
    prefix = f"layer{layer}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


@dataclass(frozen=True)
class Forward:
    """Outputs [batch, readouts, output] and the state after each sequence's end."""

    outputs: Array
    state: State


@dataclass(frozen=True)
class Gradients:
    """Gradients with respect to weights, inputs and initial state.

    `inputs` [batch, time, input] is the gradient with respect to the first layer's
    input: the reals, the one-hot vectors or the embedded tokens.
    """

    weights: Weights
    inputs: Array
    state: State


@dataclass(frozen=True)
class LossAndGradients:
    """The mean loss over scored positions and its gradient for every weight."""

    loss: float
    gradients: Weights


@dataclass(frozen=True)
class Updates:
    """Loss before, and gradient norm before clipping, of each update: [updates]."""

    losses: Array
    gradient_norms: Array


R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Handle(Generic[R_co]):
    """Queued work: `wait` waits until it is done, `read` brings its result to the host.

    Attributes:
        carry: The final state in the network's own form, which its `step` takes instead
            of arrays; None if only `read` returns it.
    """

    wait: Callable[[], None]
    read: Callable[[], R_co]
    carry: Any = None


class Network(Protocol):
    """What every implementation can do, even if it cannot train."""

    def load_weights(self, weights: Weights) -> None:
        """Take canonical weights, cast to the network's dtype."""

    def weights(self) -> Weights:
        """Return the canonical weights."""

    def place(self, batch: Batch) -> Placed:
        """Bring a batch to the device, in the network's own form."""

    def forward(self, placed: Placed, state: State | None = None) -> Handle[Forward]:
        """Compute outputs and final state from a state; None means zeros."""

    def step(self, x: Array, state: State | Any) -> Handle[Forward]:
        """Advance one time step, x [batch, input] or tokens [batch], and answer.

        The state is arrays, or the `carry` of an earlier step's handle.
        """

    def kernel(self) -> str:
        """Return what really ran, from evidence."""


class TrainableNetwork(Network, Protocol):
    """A network that also computes gradients and takes optimiser steps."""

    def vjp(
        self,
        placed: Placed,
        state: State | None,
        d_outputs: Array,
        d_final: State,
    ) -> Gradients:
        """Pull cotangents of outputs and final state back to weights and inputs."""

    def loss_and_gradients(self, placed: Placed) -> Handle[LossAndGradients]:
        """Compute the loss and its gradient for every weight."""

    def train_steps(self, placed: Sequence[Placed]) -> Handle[Updates]:
        """Take one optimiser update on each batch, in order."""

    def optimizer_state(self) -> dict[str, Array]:
        """Return `updates` and, in canonical layout, `NAME/TENSOR` moments."""

    def load_optimizer_state(self, arrays: Mapping[str, Array]) -> None:
        """Take what `optimizer_state` returned."""


class Oracle(TrainableNetwork, Protocol):
    """The reference, which also computes the gradient for the state at every time."""

    def state_gradients(
        self, placed: Placed, d_outputs: Array | None
    ) -> tuple[Array, ...]:
        """Return the gradient for the state after every number of time steps.

        The state after t time steps is that of all layers together. Its gradient is
        that of the function which continues from it: the answer of step t, which is
        read from the upper layer's state, and all later time steps. The path from a
        layer to the one above within step t lies before that state and does not count.
        Entry 0 is the gradient for the initial state.

        There is one array [time + 1, layers, batch, hidden] for each state part.
        `d_outputs` [batch, readouts, output] is the cotangent of the outputs; None
        means the gradient of the loss.
        """


# --- devices -------------------------------------------------------------------------


class DeviceTimer(Protocol):
    """The device's own clock around work that is queued on it."""

    def start(self) -> None:
        """Start timing at the end of the work queued so far."""

    def stop(self) -> float:
        """Wait; return the seconds from `start` to the end of what was queued."""


@dataclass(frozen=True)
class FrameworkState:
    """What a framework reports about its process.

    Attributes:
        builds: A number that rises whenever something is traced or compiled. It does
            not change if a framework does neither, or does not report it.
        threads: Threads of one operation on the CPU, or None if it is not reported.
        settings: Modes and defaults of the whole process, by their names, that change
            what other code of the process computes or how long it takes. Values are
            equal as long as nobody changes them.
        shared: Modules and classes whose functions other code of the process calls.
    """

    builds: int = 0
    threads: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared: Sequence[ModuleType | type] = ()


class DeviceProbe(Protocol):
    """The speed and memory of a framework's own library on one device."""

    def matmul(self, size: int, dtype: str, precision: str) -> Callable[[], None]:
        """Return a call that multiplies two square matrices and waits.

        The matrices are on the device and hold random numbers.

        Args:
            size: Rows and columns of each.
            dtype: `float32` or `float64`, as a network's.
            precision: `highest`, `tf32` or `bf16`, as a network's.

        Raises:
            RefusedError: If the framework has no such product on this device.
        """

    def copy(self, size: int) -> Callable[[], None]:
        """Return a call that reads `size` bytes, writes them in place and waits.

        A copy into another array would move more bytes than are counted, because most
        processors also read what is overwritten.
        """

    def peak_bytes(self) -> int | None:
        """Return the most memory that the framework's allocator gave out on a GPU.

        It counts from `reset_peak` on, or from the start if the framework cannot reset
        it. It is None on the CPU.
        """

    def reset_peak(self) -> None:
        """Reset the peak, if the framework can."""

    def timer(self) -> DeviceTimer | None:
        """Return the device's clock, or None if the framework has none."""

    def state(self) -> FrameworkState:
        """Return what the framework reports now; asked before and after each turn."""
