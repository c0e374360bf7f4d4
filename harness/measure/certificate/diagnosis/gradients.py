"""What is the likely cause if outputs are right and gradients are wrong?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from harness.contract import (
    Array,
    Inputs,
    Readout,
    Saved,
    State,
    Steps,
    TrainableNetwork,
    Weights,
    layer_weights,
)
from harness.loading import load_equations
from harness.measure.certificate.diagnosis import evidence
from harness.measure.certificate.diagnosis.changed_derivatives import (
    changed_derivatives,
)
from harness.measure.certificate.diagnosis.changed_steps import (
    ChangedBackward,
    without_gates,
)
from harness.measure.certificate.diagnosis.evidence import Found, Hypothesis, Suspects
from harness.measure.certificate.diagnosis.tried_steps import (
    RefutedError,
    Sought,
    TriedSteps,
)
from harness.measure.certificate.distance import UNDERFLOW, norm
from harness.measure.certificate.network_pair import LARGE_COTANGENT, Case, NetworkPair
from harness.measure.certificate.record import in_layer, listed
from harness.measure.certificate.shapes import PAIRWISE, Shape
from harness.measure.subject import Basis, Subject

BOUNDS = tuple(m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5))
"""Round numbers that somebody might choose as a bound on a gradient."""

LONGEST_CUT = max(shape.time_steps for shape in PAIRWISE) - 1
"""A gradient that is truncated every so many time steps or more often shows."""

LONGER = Shape(
    Inputs("reals", 5), 2 * LONGEST_CUT + 2, 1, 20, 1, Readout.EVERY, padded=False
)
"""Long enough for two cuts of any truncation."""

MATCHES = 10
"""A hypothesis agrees within this many tolerances: a gradient that lacks a part may be
smaller, so that rounding is a larger share of it."""


def gradient_cause(subject: Subject, tolerance: float) -> tuple[str | None, set[str]]:
    """Return the likely cause of wrong gradients, and the checks that it explains.

    The cause is None if none is found.
    """
    worst = _worst(subject, tolerance)
    if worst is None:
        return None, set()
    case, found, expected, wrong = worst
    again = _pulled_back(case, case.pair.network)
    words = evidence.without_hypothesis(found, again, tolerance, "the gradient of ")
    missing = [name for name in wrong if not np.any(found[name])]
    # No unpadded shape shows a mistake that is found at a padded one.
    only = f", but only {evidence.PADDED}" if case.pair.shape.padded else ""
    if missing and not _missing_at_all_shapes(subject, case, missing):
        missing = []
    if words is None and missing != wrong:
        words = _hypothesis(subject, case, tolerance)
        words = words and words + only
    if words is not None:
        of_inputs_alone = all(name.startswith("the ") for name in wrong)
        return words, _checks(wrong if of_inputs_alone else found)
    if missing:
        return f"no gradient reaches {listed(missing, 3)}{only}", _checks(missing)
    factor = evidence.common_factor([(found[n], expected[n]) for n in wrong], tolerance)
    if factor is not None:
        words = _scaled(subject, case, wrong, factor, tolerance)
    return words and words + only, _checks(wrong)


def _worst(
    subject: Subject, tolerance: float
) -> tuple[Case, Found, Found, list[str]] | None:
    """Return the case with most disagreeing checks, and its disagreeing tensors.

    If several shapes have equally many, the first is taken. If a gradient fades, a cut
    shows in the initial state only, as if that were detached; at another shape it shows
    in the weights too. Padded sequences come last: a layer may be called once for each
    length, and then a mistake at the start of a call shows inside a sequence.

    Returns:
        The case, the gradients found, those of the reference, and the names of the
        tensors in which they disagree.
    """
    worst, most, padded = None, 0, False
    for shape in evidence.clearest_first(PAIRWISE, long=True):
        if worst is not None and shape.padded != padded:
            break
        padded = shape.padded
        ((case, found, expected),) = _asked(subject, [shape])
        wrong = evidence.disagreeing(found, expected, tolerance)
        count = len(_checks(wrong))
        if count > most:
            worst, most = (case, found, expected, wrong), count
        if all(n in wrong or n.startswith("readout.") for n in found):
            break
    return worst


def _checks(tensors: Iterable[str]) -> set[str]:
    """Return the checks of gradients: "grad w_hh" for "layer0.w_hh"."""
    return {
        "grad initial state"
        if name.startswith("the initial state")
        else f"grad {in_layer(name).removeprefix('the ')}"
        for name in tensors
    }


def _pulled_back(case: Case, network: TrainableNetwork) -> Found:
    """Return a network's gradients of weights, inputs and initial state by name."""
    d_outputs = (LARGE_COTANGENT * case.cotangent).astype(np.float32)
    d_final = tuple(np.zeros(part.shape, np.float32) for part in case.state)
    found = network.vjp(network.place(case.batch), case.state, d_outputs, d_final)
    parts = zip(case.pair.cell.info.state_parts, found.state, strict=True)
    states = {f"the initial state {name}": part for name, part in parts}
    return {**found.weights, "the inputs": found.inputs, **states}


def _asked(
    subject: Subject, shapes: Iterable[Shape]
) -> Iterator[tuple[Case, Found, Found]]:
    """Yield a case at each shape, the gradients found and those of the reference."""
    for shape in shapes:
        # A long memory shows a cut better.
        case = NetworkPair(subject, shape).case(0, point=1).load()
        networks = case.pair.network, case.pair.oracle
        found, right = (_pulled_back(case, network) for network in networks)
        yield case, found, right


def _of_its_kind(worst: Case) -> list[Shape]:
    """Return the shapes that are padded if this case is, the shortest first."""
    shapes = [s for s in PAIRWISE if s.padded == worst.pair.shape.padded]
    return evidence.shortest_first(shapes)


class _Trials:
    """Tries time steps with a right forward pass and a changed backward pass.

    Args:
        case: Where they are tried.
        found: The gradients that were found there.
        tolerance: The largest relative error of gradients that agree.
    """

    def __init__(self, case: Case, found: Found, tolerance: float) -> None:
        self._case = case
        self._sought = Sought.of(found["the inputs"], tolerance)
        self._known: list[tuple[State, Saved]] = []

    def gives(self, steps: Steps) -> Found | None:
        """Return the gradients that these steps give; None if they do not agree.

        Args:
            steps: Steps whose forward pass saves the same as that of the steps before.
        """
        tried = TriedSteps(steps, self._known, self._sought)
        try:
            return _pulled_back(self._case, self._case.around(tried))
        except RefutedError:
            return None


def _hypothesis(subject: Subject, worst: Case, tolerance: float) -> str | None:
    """Return the only mistake that explains the gradients at several shapes.

    Stacked layers are asked only if several mistakes explain what one layer does: in
    them one mistake may have several effects. A gradient that is cut shows in which
    time steps only at a shape with an answer at each of them. Whether it is cut every
    60 time steps, or once, 40 before the end, shows only at another length.
    """
    tolerance *= MATCHES
    suspects, shapes = Suspects(tolerance), _of_its_kind(worst)
    for layers in sorted({shape.num_layers for shape in shapes}):
        of_layers = [s for s in shapes if s.num_layers == layers]
        for case, found, right in _asked(subject, of_layers):
            suspects.weigh(_hypotheses(case, found, tolerance), found, right)
        padded = worst.pair.shape.padded
        longer = replace(LONGER, num_layers=layers, padded=padded)
        for case, found, right in _asked(subject, [longer]):
            suspects.weigh(_truncations(case, found, tolerance), found, right)
        if suspects.decided:
            break
    return suspects.cause()


def _missing_at_all_shapes(
    subject: Subject, worst: Case, missing: Sequence[str]
) -> bool:
    """Say whether gradients are zero at every shape: a cut may be before one start."""
    return not any(
        np.any(found[name])
        for _, found, _ in _asked(subject, _of_its_kind(worst))
        for name in missing
        if name in found
    )


def _scaled(
    subject: Subject,
    worst: Case,
    wrong: Sequence[str],
    factor: float,
    tolerance: float,
) -> str | None:
    """Return by what some gradients are multiplied at every shape.

    Args:
        subject: The implementation.
        worst: The case at which they were found.
        wrong: The names of the gradients that are wrong there.
        factor: By what they are multiplied there.
        tolerance: The largest relative error of what is right.
    """

    def gives(right: Found, names: Sequence[str], by: float) -> Found:
        return {n: by * a if n in names else a for n, a in right.items()}

    suspects, checks = Suspects(MATCHES * tolerance), _checks(wrong)
    for case, found, right in _asked(subject, _of_its_kind(worst)):
        # In stacked layers it may be that of one layer, or that of each.
        each = [name for name in right if _checks([name]) <= checks]
        hypotheses = [
            (f"the gradient of {listed(wrong, 3)} is {words}", names, by)
            for words, by in evidence.factors(case.batch, factor).items()
            for names in (wrong, each)
        ]
        given = [(w, partial(gives, right, names, by)) for w, names, by in hypotheses]
        suspects.weigh(given, found, right)
    return suspects.cause()


def _hypotheses(case: Case, found: Found, tolerance: float) -> Iterator[Hypothesis]:
    """Yield mistakes, simple ones first, and the gradients that each gives."""
    info, tried = case.pair.cell.info, _Trials(case, found, tolerance)
    back = partial(ChangedBackward, case.pair.subject.steps(), case.batch.time_steps)
    yield from _truncations(case, found, tolerance)
    names = info.state_parts
    for k, name in enumerate(names if len(names) > 1 else ()):
        words = f"no gradient flows through time in {name}"
        yield words, partial(tried.gives, back(leaving=partial(_without_part, part=k)))
    for words, blocked in _blocked_gates(case):
        yield words, partial(tried.gives, back(weights=blocked))
    for words, bounded in _bounds(case, found):
        # The bound is on the gradient after a time step, or on the one before it.
        yield words, partial(tried.gives, back(entering=bounded))
        yield words, partial(tried.gives, back(leaving=bounded))
    registry, name = case.pair.subject.registry, case.pair.spec.cell
    if registry.cell(name).equations is not None:
        layer = layer_weights(case.weights, 0)
        x = np.zeros((1, case.pair.spec.layer_input_sizes[0]))
        state = tuple(part[0, :1] for part in case.state)
        equations = load_equations(registry, name)
        of_equations = _Trials(case, found, tolerance)
        for words, changed in changed_derivatives(equations, info, layer, x, state):
            yield words, partial(of_equations.gives, changed)


def _truncations(case: Case, found: Found, tolerance: float) -> Iterator[Hypothesis]:
    """Yield cuts every so many time steps and single cuts.

    The initial state is cut off too, or not. If the first inputs have no gradient at
    all, the last cut is where it begins.
    """
    time_steps = case.batch.time_steps
    steps, tried = case.pair.subject.steps(), _Trials(case, found, tolerance)
    last = _first_reached(found["the inputs"])
    known: dict[frozenset[int], Found | None] = {}

    def given(cuts: frozenset[int]) -> Found | None:
        if last and max(cuts, default=0) != last:
            return None
        if cuts not in known:
            leaving = partial(_cut, cuts=cuts)
            known[cuts] = tried.gives(
                ChangedBackward(steps, time_steps, leaving=leaving)
            )
        return known[cuts]

    for words, cuts in _cuts(time_steps):
        for start in (frozenset[int](), frozenset({0})):
            yield words, partial(given, cuts | start)


def _first_reached(d_inputs: Array) -> int:
    """Return the first time step that a gradient reaches; 0 if it may fade there."""
    reached = np.any(d_inputs, axis=(0, 2))
    first = int(np.argmax(reached))
    return first if norm(d_inputs[:, first]) > UNDERFLOW else 0


def _cuts(time_steps: int) -> Iterator[tuple[str, frozenset[int]]]:
    """Yield truncations, and before which time steps each cuts the gradient."""
    for every in range(1, LONGEST_CUT + 1):
        words = f"the gradient is truncated every {every} time steps"
        if every == 1:
            words = "no gradient flows through time: the state is detached in each step"
        yield words, frozenset(range(every, time_steps, every))
    for left in range(1, LONGEST_CUT + 1):
        of = f"{left} time step{'s' if left > 1 else ''}"
        at = {time_steps - left} if left < time_steps else set[int]()
        yield f"the gradient is cut once, {of} before the end", frozenset(at)


def _cut(t: int, before: State, cuts: frozenset[int]) -> State:
    return tuple(np.zeros_like(part) for part in before) if t in cuts else before


def _without_part(_: int, before: State, part: int) -> State:
    return tuple(np.zeros_like(d) if i == part else d for i, d in enumerate(before))


def _blocked_gates(case: Case) -> Iterator[tuple[str, partial[Weights]]]:
    info = case.pair.cell.info
    gates = range(len(info.gates))
    if len(gates) == 1 or case.pair.subject.basis is not Basis.REFERENCE:
        return
    for count in gates[1:]:
        for chosen in itertools.combinations(gates, count):
            names = listed([info.gates[k] for k in chosen], 3)
            words = f"matches if no gradient flows through {names}"
            yield words, partial(without_gates, info=info, gates=chosen)


# --- bounds --------------------------------------------------------------------------

_BOUNDED = "matches if the gradient to the state is {} in each time step"


def _bounds(case: Case, found: Found) -> Iterator[tuple[str, partial[State]]]:
    """Yield bounds on the gradient to the state in each time step.

    A bound is a round number, or the size of the gradient to the initial state.
    """
    names = case.pair.cell.info.state_parts
    states = [found[f"the initial state {name}"] for name in names]
    largest = max(float(np.abs(part).max()) for part in states)
    norm = float(np.linalg.norm(states[0]))
    for bound in (largest, *BOUNDS) if largest else BOUNDS:
        words = f"clamped to ±{bound:.4g}"
        yield _BOUNDED.format(words), partial(_clamped, bound=bound)
    for bound in (norm, *BOUNDS) if norm else BOUNDS:
        words = f"clipped to norm {bound:.4g}"
        yield _BOUNDED.format(words), partial(_clipped, bound=bound)


def _clamped(_: int, d_state: State, bound: float) -> State:
    return tuple(np.clip(d, -bound, bound) for d in d_state)


def _clipped(_: int, d_state: State, bound: float) -> State:
    norms = [float(np.linalg.norm(d)) for d in d_state]
    return tuple(
        d * (bound / norm) if norm > bound else d
        for d, norm in zip(d_state, norms, strict=True)
    )
