"""Is it the same mathematics? The certificate compares everything with the reference.

Outputs, final states, gradients of weights, inputs and initial state, and the steps of
the optimiser are compared with the float64 reference, tensor by tensor, as
|found - reference| / |reference| in the 2-norm. A cell without a reference is compared
with its equations in float64. A cell without equations is compared with the
implementation's own single time steps. In both cases gradients are also compared with
finite differences, and invariants are checked. So they are if the implementation is the
reference's own code, which cannot be its own judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.contract import Array, Network, State, TrainableNetwork, Weights
from harness.errors import RefusedError
from harness.measure.certificate.diagnosis import diagnose
from harness.measure.certificate.differences import compare_differences
from harness.measure.certificate.invariants import compare_invariants
from harness.measure.certificate.network_pair import (
    LARGE_COTANGENT,
    NetworkPair,
    OnBoth,
    one_unscored,
    random_batch,
    weight_points,
)
from harness.measure.certificate.peers import compare_peers
from harness.measure.certificate.record import (
    EXACT,
    TOLERANCES,
    Certificate,
    in_layer,
    listed,
)
from harness.measure.certificate.rounding import Responses, nudged
from harness.measure.certificate.shapes import PAIRWISE, full_grid
from harness.measure.certificate.trajectories import STEADY, compare_optimizers
from harness.measure.problem import Measurement
from harness.measure.subject import ORACLE, Basis, Subject, offered
from harness.measure.work import Work
from harness.quantities import PARITY
from harness.registry import Registry
from harness.runner.given import streamed
from harness.runner.runner import Runner
from harness.trial import CertificateSettings, Trial

_TIME_STEPS = 60_000
"""Time steps of small networks that one certificate computes, roughly."""


def work(registry: Registry, trial: Trial) -> Work:
    """Return what making a certificate computes."""
    return Work(_TIME_STEPS, start_s=2.0)


def in_words(values: Mapping[tuple[str, str], Any]) -> str:
    """Return "certified (22 checks)", from the values by split and metric."""
    checks = values["certificate", "checks"]
    if values["certificate", "certified"]:
        return f"certified ({checks} checks)"
    broken = values["certificate", "broken"]
    return f"NOT certified ({broken} of {checks} checks broken)"


def measure_parity(
    registry: Registry, trial: Trial, runner: Runner | None = None
) -> Measurement:
    """Certify one implementation of one cell at every shape of the certificate.

    Settings: `shapes`, "full" or, for the pairwise set, None.

    Args:
        registry: Every plugin.
        trial: The trial.
        runner: Where networks of the implementation live; None is this process.

    Raises:
        RefusedError: If the implementation declines the trial, no tolerance is stated
            for its precision, or there is nothing to compare it with.
    """
    declared = offered(registry, trial)
    key = (trial.dtype, trial.precision)
    if key not in TOLERANCES or trial.biases != "canonical":
        raise RefusedError(
            f"no tolerance is stated for {trial.dtype} at precision {trial.precision} "
            f"with {trial.biases} biases"
        )
    subject, trains = Subject.of(registry, trial, runner), declared.trains
    shapes = full_grid() if trial.settings_as(CertificateSettings).shapes else PAIRWISE
    certificate = Certificate(TOLERANCES[key], len(shapes))
    basis = subject.basis
    alone = basis is not Basis.REFERENCE or trial.implementation == ORACLE
    against = [basis.value]
    kernels: dict[bool, str] = {}  # with padded batches and without
    for index, shape in enumerate(shapes):
        pair = NetworkPair(subject, shape, STEADY)
        PairComparison(certificate, pair, trains).run(seed=index)
        if shape.padded not in kernels:
            kernels[shape.padded] = pair.network.kernel()
        if alone:
            compare_invariants(certificate, pair, seed=index)
    if trains:
        compare_optimizers(certificate, subject)
    if alone:
        if trains:
            dtype = compare_differences(certificate, subject)
            against.append(f"finite differences in {dtype}")
        against.append("invariants")
    _check_given(certificate, subject)
    unproven = None
    if basis is Basis.OWN_STEPS:
        peers = compare_peers(certificate, subject)
        against += peers
        unproven = _unproven(trial, peers)
    diagnose(certificate, subject, trains=trains)
    ran = dict.fromkeys(filter(None, (kernels.get(False), kernels.get(True))))
    return Measurement(
        readings=certificate.readings(),
        facts={
            "kernel": "; padded ".join(ran),
            "against": listed(against),
            "unproven": unproven,
            **certificate.facts(),
        },
        quantities=PARITY,
    )


def _check_given(certificate: Certificate, subject: Subject) -> None:
    """Record whether the networks left alone the arrays that they were given.

    They compute on copies, so that all other checks are right nevertheless.
    """
    written = dict.fromkeys(subject.runner.written)
    where = f"{listed([*written], 3)}; copy it first" if written else ""
    certificate.record("given arrays", float(len(written)), where, EXACT)


def _unproven(trial: Trial, peers: Sequence[str]) -> str:
    """Say what is not proven if a cell has neither a reference nor equations."""
    name = trial.implementation
    same = f" and computes what {listed(peers)} computes" if peers else ""
    return (
        f"cell {trial.cell} declares neither a reference nor equations: {name} is "
        f"consistent with itself{same}; that any other implementation computes the "
        "same is not proven"
    )


_STREAMED = 3
_IN_A_ROW = f"of step {_STREAMED} in a row"
"""The second step takes what the first carries, and the third what the second does."""

Answers = dict[tuple[str, str], Array]
"""What a network computed, by check and tensor: ("final state", "c")."""

Cotangents = tuple[Array, State]
"""Of the outputs [batch, readouts, output] and of the final state."""


class PairComparison:
    """Compares the implementation's network with the reference at one shape."""

    def __init__(
        self, certificate: Certificate, pair: NetworkPair, trains: bool
    ) -> None:
        self._certificate, self._pair, self._trains = certificate, pair, trains
        self._loaded: Weights = {}

    def run(self, seed: int) -> None:
        """Compare at both `weight_points`, with inputs drawn from a seed.

        A batch is placed once and serves all calls. An answer that was kept from an
        earlier call with another state, another batch of the same shape or other
        weights then differs from the reference.
        """
        pair = self._pair
        rng = np.random.default_rng(seed)
        drawn = [one_unscored(random_batch(pair.shape, rng)) for _ in range(2)]
        batch, other = (OnBoth(pair, each) for each in drawn)
        for weights in weight_points(pair.spec, pair.cell, seed):
            self._loaded = pair.load(weights)
            if seed == 0:
                self._load_another()
            self._round_trip()
            state = pair.state(rng)
            given = partial(self._forward, batch=batch, state=state)
            expected = self._compare(given)
            # Both must begin with zeros where no state is given.
            of_none = partial(self._forward, batch=batch, state=None)
            self._compare(of_none, "from no state")
            self._compare(partial(self._step, x=batch.batch.inputs[:, 0], state=state))
            if self._trains:
                pulled = self._gradients(batch, rng)
                loss = self._compare(partial(self._loss, batch=batch))
        # These show with any weights, so the last ones are enough.
        if self._trains:
            # Gradients that are added to those of before show in a second call.
            self._compare(partial(self._loss, batch=batch), "called again", loss)
            of_none = partial(self._vjp, batch=batch, state=None, pulled=pulled)
            again = self._compare(of_none, "from no state")
            self._compare(of_none, "from no state, called again", again)
        xs, another = other.batch.inputs[:, :_STREAMED], pair.state(rng)
        self._compare(partial(self._stream, xs=xs, state=another), _IN_A_ROW)
        beside = partial(self._forward, batch=other, state=state)
        self._compare(beside, "of a second batch")
        self._compare(given, "called again", expected)
        if self._trains and seed == 0:
            self._after_training(batch, state, pulled)

    def _load_another(self) -> None:
        """Load other weights into a second network, which may not reach the first."""
        another = self._pair.subject.network(self._pair.spec)
        another.load_weights({name: w / 2 for name, w in self._loaded.items()})

    def _after_training(self, batch: OnBoth, state: State, pulled: Cotangents) -> None:
        """Compare an update, and what comes after: nothing of old weights may serve."""
        pair = self._pair
        self._compare(partial(self._update, batch=batch))
        self._loaded = pair.network.weights()
        if not all(np.isfinite(w).all() for w in self._loaded.values()):
            return  # the updates themselves are compared elsewhere
        pair.oracle.load_weights(self._loaded)
        x = batch.batch.inputs[:, 0]
        for compute in (
            partial(self._forward, batch=batch, state=state),
            partial(self._step, x=x, state=state),
            partial(self._loss, batch=batch),
            partial(self._vjp, batch=batch, state=state, pulled=pulled),
        ):
            self._compare(compute, "after an update")

    def _compare(
        self,
        compute: Callable[[TrainableNetwork], Answers],
        words: str = "",
        expected: Answers | None = None,
    ) -> Answers:
        """Compare what both networks compute; return what is expected.

        Args:
            compute: Computes the answers of a network.
            words: What is special about them.
            expected: The reference's, if they are known already.
        """
        pair = self._pair
        found = compute(pair.network)
        right = compute(pair.oracle) if expected is None else expected
        responses = Responses(partial(self._nudged, compute), right)
        at = f"{words}, at {pair.shape.words}" if words else f"at {pair.shape.words}"
        for (check, tensor), reference in right.items():
            self._certificate.compare(
                check,
                found.get((check, tensor), np.empty(0)),
                reference,
                f"{tensor} {at}".strip(),
                changes=responses.of((check, tensor)),
            )
        return right

    def _nudged(
        self, compute: Callable[[TrainableNetwork], Answers], nudge: int
    ) -> Answers:
        """Return what the reference computes with nudged weights."""
        oracle = self._pair.oracle
        oracle.load_weights(nudged(self._loaded, self._pair.unit, nudge))
        changed = compute(oracle)
        oracle.load_weights(self._loaded)
        return changed

    def _round_trip(self) -> None:
        found = self._pair.network.weights()
        for name, tensor in self._loaded.items():
            self._certificate.require_equal(
                "weights come back", found.get(name, np.empty(0)), tensor, name
            )

    def _states(self, check: str, state: State) -> Answers:
        names = self._pair.cell.info.state_parts
        return {(check, name): part for name, part in zip(names, state, strict=True)}

    def _forward(self, network: Network, batch: OnBoth, state: State | None) -> Answers:
        done = network.forward(batch.on(network), state).read()
        states = self._states("final state", done.state)
        return {("outputs", ""): done.outputs, **states}

    def _step(self, network: Network, x: Array, state: State) -> Answers:
        done = network.step(x, state).read()
        states = self._states("one time step", done.state)
        return {("one time step", "outputs"): done.outputs, **states}

    def _stream(self, network: Network, xs: Array, state: State) -> Answers:
        done = streamed(network, xs, state)
        states = self._states("one time step", done.state)
        return {("one time step", "outputs"): done.outputs, **states}

    def _gradients(self, batch: OnBoth, rng: np.random.Generator) -> Cotangents:
        """Compare gradients from a state; return the cotangents of every output."""
        size, readouts = batch.batch.scored.shape
        dense = rng.standard_normal((size, readouts, self._pair.spec.output_size))
        last = np.zeros_like(dense)
        last[:, -1] = LARGE_COTANGENT * rng.standard_normal(last[:, -1].shape)
        state = self._pair.state(rng)
        d_dense = tuple(rng.standard_normal(part.shape) for part in state)
        d_none = tuple(np.zeros(part.shape) for part in state)
        cotangents = (dense, d_dense), (last, d_none)
        for pulled in cotangents:
            self._compare(partial(self._vjp, batch=batch, state=state, pulled=pulled))
        if not batch.batch.padded:
            # The gradient to the state at one split point is checked for all of them.
            oracle, middle = self._pair.oracle, batch.batch.time_steps // 2
            first, second = batch.split_at(middle)
            between = oracle.forward(first.on(oracle), state).read().state
            rounded = tuple(part.astype(np.float32) for part in between)
            cut = slice(middle, None) if readouts > 1 else slice(None)
            for d_outputs, d_final in cotangents:
                half = partial(
                    self._vjp,
                    batch=second,
                    state=rounded,
                    pulled=(d_outputs[:, cut], d_final),
                    of_state="grad state at split",
                )
                self._compare(half)
        return cotangents[0]

    def _vjp(
        self,
        network: TrainableNetwork,
        batch: OnBoth,
        state: State | None,
        pulled: Cotangents,
        of_state: str = "grad initial state",
    ) -> Answers:
        # Rounded to float32, so that both sides start from the same numbers.
        d_outputs = pulled[0].astype(np.float32)
        d_final = tuple(d.astype(np.float32) for d in pulled[1])
        found = network.vjp(batch.on(network), state, d_outputs, d_final)
        weights = {(f"grad {in_layer(n)}", n): d for n, d in found.weights.items()}
        states = self._states(of_state, found.state)
        if state is None and not self._pair.subject.takes_zeros:
            states = {}  # no state is near zeros
        return {**states, ("grad inputs", ""): found.inputs, **weights}

    def _loss(self, network: TrainableNetwork, batch: OnBoth) -> Answers:
        done = network.loss_and_gradients(batch.on(network)).read()
        gradients = {("grad of loss", n): d for n, d in done.gradients.items()}
        return {("loss", ""): np.array(done.loss), **gradients}

    def _update(self, network: TrainableNetwork, batch: OnBoth) -> Answers:
        done = network.train_steps([batch.on(network)]).read()
        weights = {("one update", n): np.array(w) for n, w in network.weights().items()}
        return {("one update", "loss"): done.losses, **weights}
