"""Why a certificate is broken: mistakes tried one by one against what was found.

A hypothesis is a change to the reference, such as two gates exchanged. Where the
changed reference agrees with what was found, within the tolerance that the right one
missed, the change is the likely cause. Nothing is tried while nothing is broken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from harness.contract import (
    Array,
    Batch,
    CellInfo,
    Readout,
    ReferenceCell,
    State,
    Target,
    TrainableNetwork,
    Weights,
)
from harness.measure.certificate import Certificate, relative_error
from harness.measure.optimizer_mistakes import likely_optimizer_mistake
from harness.measure.pair import Pair, Subject, random_batch, split_at, weight_points
from harness.measure.problem import build_oracle
from harness.measure.shapes import PAIRWISE, Shape

FORWARD = ("outputs", "final state", "one time step")
LOSS = ("loss", "grad of loss")
EVERY = ("w_ih", "w_hh", "b")
TRUNCATIONS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 35, 40, 50, 64)


def diagnose(certificate: Certificate, subject: Subject, *, trains: bool) -> None:
    """Write the likely cause of every broken check into the certificate."""
    if not certificate.broken or not subject.has_reference:
        return
    tolerance = certificate.tolerance.certified
    broken = set(certificate.broken)
    if broken & set(FORWARD):
        cause = _forward_cause(subject, tolerance)
        # A wrong output makes wrong gradients, losses and updates.
        _write(certificate, broken, cause)
        return
    if not trains:
        return
    gradients = {c for c in broken if c.startswith("grad ") and c not in LOSS}
    if gradients:
        _write(certificate, broken, _gradient_cause(subject, tolerance))
        return
    if broken & set(LOSS):
        _write(certificate, broken, _loss_cause(subject, tolerance))
        return
    for name in ("adam", "rmsprop", "sgd"):
        affected = {c for c in broken if c.startswith(f"{name} ")}
        if affected:
            cause = likely_optimizer_mistake(subject, name)
            _write(certificate, affected, cause)


def _write(certificate: Certificate, checks: set[str], cause: str | None) -> None:
    if cause is not None:
        certificate.causes |= {
            check: cause for check in certificate.broken if check in checks
        }


def _agrees(found: Array, reference: Array, tolerance: float) -> bool:
    error = relative_error(found, np.asarray(reference, np.float64))
    return error is None or error <= tolerance


# --- outputs -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What a network computed at one shape, from a state and from none."""

    outputs: Array
    state: State

    def agrees(self, other: _Run, tolerance: float) -> bool:
        parts = zip(self.state, other.state, strict=True)
        return _agrees(self.outputs, other.outputs, tolerance) and all(
            _agrees(a, b, tolerance) for a, b in parts
        )


def _forward_cause(subject: Subject, tolerance: float) -> str | None:
    """Return which change of the reference gives the outputs that were found."""
    for shape in _most_telling(PAIRWISE):
        pair = subject.pair(shape)
        rng = np.random.default_rng(0)
        batch = random_batch(shape, rng)
        weights = pair.load(next(weight_points(pair.spec, pair.cell, 0)))
        state = pair.state(rng)
        found = _run(pair.network, batch, state)
        if found.agrees(_run(pair.oracle, batch, state), tolerance):
            continue  # what is wrong shows at other shapes alone
        return _first_match(subject, pair, weights, batch, state, found, tolerance)
    return None


def _most_telling(shapes: Sequence[Shape]) -> list[Shape]:
    """Return shapes in order: one layer, unpadded, short ones first."""
    return sorted(
        shapes, key=lambda s: (s.padded, s.num_layers, s.inputs.kind, s.time_steps)
    )


def _run(network: object, batch: Batch, state: State | None) -> _Run:
    runner = cast(TrainableNetwork, network)
    done = runner.forward(runner.place(batch), state).read()
    return _Run(done.outputs, done.state)


def _first_match(
    subject: Subject,
    pair: Pair,
    weights: Weights,
    batch: Batch,
    state: State,
    found: _Run,
    tolerance: float,
) -> str | None:
    for cause, changed in _changed_weights(pair.cell.info, weights):
        pair.oracle.load_weights(changed)
        if found.agrees(_run(pair.oracle, batch, state), tolerance):
            return cause
    pair.oracle.load_weights(weights)
    if found.agrees(_run(pair.oracle, batch, None), tolerance):
        return "the initial state is ignored"
    if batch.padded:
        whole = replace(batch, lengths=np.full(batch.size, batch.time_steps))
        if found.agrees(_run(pair.oracle, whole, state), tolerance):
            return "padding leaks: sequences are run on beyond their end"
    for name, network, theirs in _other_cells(subject, pair, weights):
        network.load_weights(theirs)
        if found.agrees(_run(network, batch, state), tolerance):
            return f"this is the cell {name}"
    return None


def _changed_weights(info: CellInfo, weights: Weights) -> Iterator[tuple[str, Weights]]:
    """Yield mistakes that are a change of the weights, the simple ones first."""
    gates = info.gates
    for i, j in itertools.combinations(range(len(gates)), 2):
        order = list(range(len(gates)))
        order[i], order[j] = j, i
        cause = f"matches if gates {gates[i]} and {gates[j]} are exchanged"
        yield cause, _of_layers(weights, partial(_reordered, order=order))
    for k, gate in enumerate(gates):
        yield (
            f"matches if {gate} and 1 - {gate} are exchanged",
            _of_layers(weights, partial(_scaled, gate=k, scale=-1, names=EVERY)),
        )
        for scale, words in ((0, "is forgotten"), (2, "is added twice")):
            yield (
                f"matches if the bias of gate {gate} {words}",
                _of_layers(
                    weights, partial(_scaled, gate=k, scale=scale, names=("b",))
                ),
            )
    for name in dict.fromkeys(n.partition(".")[2] for n in weights if "." in n):
        for scale, words in ((0, "is forgotten"), (2, "is added twice")):
            changed = {
                n: w * scale if n.endswith(f".{name}") else w
                for n, w in weights.items()
            }
            yield f"matches if {name} {words}", changed
    yield "matches if w_hh is transposed", _of_layers(weights, _transposed)
    for permutation in itertools.permutations(range(len(gates))):
        names = ", ".join(gates[k] for k in permutation)
        order = list(permutation)
        yield (
            f"matches if the gates come in the order {names}",
            _of_layers(weights, partial(_reordered, order=order)),
        )


def _of_layers(weights: Weights, change: Callable[[Weights], Weights]) -> Weights:
    """Apply a change to the tensors of every layer."""
    layers = dict.fromkeys(
        n.partition(".")[0] for n in weights if n.startswith("layer")
    )
    changed = dict(weights)
    for layer in layers:
        own = {
            n.removeprefix(f"{layer}."): w
            for n, w in weights.items()
            if n.startswith(f"{layer}.")
        }
        changed |= {f"{layer}.{n}": w for n, w in change(own).items()}
    return changed


def _transposed(weights: Weights) -> Weights:
    return {n: w.swapaxes(1, 2) if n == "w_hh" else w for n, w in weights.items()}


def _reordered(weights: Weights, order: list[int]) -> Weights:
    return {n: w[order] if n in EVERY else w for n, w in weights.items()}


def _scaled(weights: Weights, gate: int, scale: float, names: Sequence[str]) -> Weights:
    changed = dict(weights)
    for name in names:
        if name in weights:
            tensor = weights[name].copy()
            tensor[gate] *= scale
            changed[name] = tensor
    return changed


def _other_cells(
    subject: Subject, pair: Pair, weights: Weights
) -> Iterator[tuple[str, TrainableNetwork, Weights]]:
    """Yield networks of cells with the same state, with the tensors they share."""
    for name, declared in subject.registry.cells.items():
        if name == pair.spec.cell or not declared.reference:
            continue
        cell = cast(ReferenceCell, subject.registry.load_cell(name))
        if cell.info.state_parts != pair.cell.info.state_parts:
            continue
        shapes = replace(pair.spec, cell=name).weight_shapes(cell)
        trial = replace(subject.trial, cell=name)
        spec = replace(pair.spec, cell=name)
        oracle = build_oracle(subject.registry, trial, spec, cell)
        for given in (weights, _with_one_bias(pair.cell.info, weights)):
            shared = {n: given.get(n, np.zeros(s)) for n, s in shapes.items()}
            if all(shared[n].shape == s for n, s in shapes.items()):
                yield name, oracle, shared


def _with_one_bias(info: CellInfo, weights: Weights) -> Weights:
    """Add a gate's second bias, `b_hn` of gate n, to its first."""

    def joined(layer: Weights) -> Weights:
        layer = {n: w.copy() for n, w in layer.items()}
        for k, gate in enumerate(info.gates):
            layer["b"][k] += layer.get(f"b_h{gate}", 0)
        return layer

    return _of_layers(weights, joined)


# --- gradients -----------------------------------------------------------------------


def _gradient_cause(subject: Subject, tolerance: float) -> str | None:
    """Return what was done to a gradient whose outputs are right."""
    shape = next(
        s for s in PAIRWISE if not s.padded and s.num_layers == 1 and s.time_steps > 64
    )
    pair = subject.pair(shape)
    rng = np.random.default_rng(0)
    batch = random_batch(shape, rng)
    # The longer memory shows better where a gradient was cut.
    *_, weights = weight_points(pair.spec, pair.cell, 0)
    pair.load(weights)
    state = pair.state(rng)
    d_outputs = rng.standard_normal((*batch.scored.shape, pair.spec.output_size))
    d_outputs = d_outputs.astype(np.float32)
    d_final = tuple(np.zeros(part.shape, np.float32) for part in state)
    network = cast(TrainableNetwork, pair.network)
    found = network.vjp(network.place(batch), state, d_outputs, d_final).weights
    expected = pair.oracle.vjp(pair.oracle.place(batch), state, d_outputs, d_final)
    wrong = [
        n for n, g in expected.weights.items() if not _agrees(found[n], g, tolerance)
    ]
    if not wrong:
        return None
    for name in wrong:
        if not np.any(found[name]):
            return f"no gradient reaches {name}"
    for steps in TRUNCATIONS:
        cut = _truncated(pair, batch, state, d_outputs, steps)
        if all(_agrees(found[n], cut[n], 10 * tolerance) for n in wrong):
            every = "time step" if steps == 1 else f"{steps} time steps"
            return f"the gradient is truncated every {every}"
    factor = _common_factor([(found[n], expected.weights[n]) for n in wrong], tolerance)
    if factor is not None:
        where = " and ".join(wrong)
        return f"the gradient of {where} is {factor:.4g} times the reference"
    return None


def _truncated(
    pair: Pair, batch: Batch, state: State, d_outputs: Array, steps: int
) -> Weights:
    """Return the reference's gradient with the way back cut every so many steps."""
    oracle = pair.oracle
    total: Weights = {}
    starts = range(0, batch.time_steps, steps)
    before = [state]
    pieces = []
    rest = batch
    for start in starts:
        piece = rest
        if batch.time_steps - start > steps:
            piece, rest = split_at(rest, steps)
        pieces.append(piece)
        before.append(oracle.forward(oracle.place(piece), before[-1]).read().state)
    zero = tuple(np.zeros(part.shape) for part in state)
    every = pair.spec.readout is Readout.EVERY
    for start, piece, initial in zip(starts, pieces, before, strict=False):
        if every:
            d_piece = d_outputs[:, start : start + piece.time_steps]
        else:
            last = start + piece.time_steps == batch.time_steps
            d_piece = d_outputs if last else np.zeros_like(d_outputs)
        found = oracle.vjp(oracle.place(piece), initial, d_piece, zero).weights
        total = {n: total.get(n, 0) + g for n, g in found.items()}
    return total


def _common_factor(
    pairs: Sequence[tuple[Array, Array]], tolerance: float
) -> float | None:
    """Return c where every found tensor is c times the reference, else None."""
    norms = [float(np.vdot(r, r)) for _, r in pairs]
    if not pairs or min(norms) == 0:
        return None
    factor = float(np.vdot(pairs[0][0], pairs[0][1])) / norms[0]
    if all(_agrees(f, factor * r, tolerance) for f, r in pairs):
        return factor
    return None


# --- loss ----------------------------------------------------------------------------


def _loss_cause(subject: Subject, tolerance: float) -> str | None:
    """Return which other mean, or which other loss, gives the value that was found."""
    for shape in sorted(PAIRWISE, key=lambda s: s.readout is Readout.LAST):
        pair = subject.pair(shape)
        rng = np.random.default_rng(0)
        batch = random_batch(shape, rng)
        pair.load(next(weight_points(pair.spec, pair.cell, 0)))
        network = cast(TrainableNetwork, pair.network)
        found = network.loss_and_gradients(network.place(batch)).read()
        expected = pair.oracle.loss_and_gradients(pair.oracle.place(batch)).read()
        if not _agrees(np.array(found.loss), np.array(expected.loss), tolerance):
            outputs = pair.oracle.forward(pair.oracle.place(batch)).read().outputs
            return _matching_loss(shape, batch, outputs, found.loss, tolerance)
        factor = _common_factor(
            [(found.gradients[n], g) for n, g in expected.gradients.items()], tolerance
        )
        if factor is not None and abs(factor - 1) > tolerance:
            return f"the gradient of the loss is {factor:.4g} times the reference"
    return None


def _matching_loss(
    shape: Shape, batch: Batch, outputs: Array, found: float, tolerance: float
) -> str | None:
    losses = _position_losses(shape.target, outputs, batch.targets)
    scored = np.where(batch.scored, losses, 0)
    per_sequence = scored.sum(axis=1) / np.maximum(batch.scored.sum(axis=1), 1)
    mean = scored.sum() / batch.scored.sum()
    for words, value in (
        ("the loss is averaged over every position, scored or not", losses.mean()),
        ("the loss is summed over scored positions, not averaged", scored.sum()),
        ("the loss is averaged over sequences alone", scored.sum() / batch.size),
        ("the loss is averaged over time alone", scored.sum() / scored.shape[1]),
        ("the loss is divided by the number of all positions", scored.mean()),
        ("each sequence is averaged by itself, then all", per_sequence.mean()),
        ("the squared error is halved", mean / 2),
        ("the loss is summed over outputs, not averaged", mean * outputs.shape[-1]),
        ("the loss is in bits, not nats", mean / np.log(2)),
    ):
        if _agrees(np.array(found), np.array(value), tolerance):
            return words
    return None


def _position_losses(target: Target, outputs: Array, targets: Array) -> Array:
    """Return the loss at every position, [batch, readouts]."""
    if target is Target.REAL:
        squared: Array = ((outputs - targets) ** 2).mean(axis=-1)
        return squared
    largest = outputs.max(axis=-1, keepdims=True)
    log_sum = largest[..., 0] + np.log(np.exp(outputs - largest).sum(axis=-1))
    chosen = np.take_along_axis(outputs, targets[..., None], axis=-1)[..., 0]
    entropy: Array = log_sum - chosen
    return entropy
