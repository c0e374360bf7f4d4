"""Is it the same mathematics? The certificate compares everything with the reference.

Outputs, final states, gradients of weights, inputs and initial state, and the steps of
the optimiser are compared with the float64 reference, tensor by tensor, as
|found - reference| / |reference| in the 2-norm. A cell without a reference is compared
with its equations in float64. A cell without equations is compared with the
implementation's own single time steps. In both cases gradients are also compared with
finite differences, and invariants are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.contract import Array, Batch, Forward, Handle, Network, State, Weights
from harness.errors import RefusedError
from harness.hosting.host import Host
from harness.measure.certificate.diagnosis import diagnose
from harness.measure.certificate.differences import compare_differences
from harness.measure.certificate.invariants import compare_invariants
from harness.measure.certificate.network_pair import (
    LARGE_COTANGENT,
    NetworkPair,
    random_batch,
    split_at,
    weight_points,
)
from harness.measure.certificate.peers import compare_peers
from harness.measure.certificate.record import (
    EXACT,
    QUANTITIES,
    TOLERANCES,
    Certificate,
    in_layer,
    listed,
)
from harness.measure.certificate.shapes import PAIRWISE, full_grid
from harness.measure.certificate.trajectories import compare_optimizers
from harness.measure.problem import Measurement
from harness.measure.subject import Basis, Subject, offered
from harness.measure.work import Work
from harness.registry import Registry
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
    registry: Registry, trial: Trial, host: Host | None = None
) -> Measurement:
    """Certify one implementation of one cell at every shape of the certificate.

    Settings: `shapes`, "full" or, for the pairwise set, None.

    Args:
        registry: Every plugin.
        trial: The trial.
        host: Where networks of the implementation live; None is this process.

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
    subject, trains = Subject.of(registry, trial, host), declared.trains
    shapes = full_grid() if trial.settings_as(CertificateSettings).shapes else PAIRWISE
    certificate = Certificate(TOLERANCES[key], len(shapes))
    basis = subject.basis
    against = [basis.value]
    kernels: dict[bool, str] = {}  # with padded batches and without
    for index, shape in enumerate(shapes):
        pair = NetworkPair(subject, shape)
        PairComparison(certificate, pair, trains).run(seed=index)
        if shape.padded not in kernels:
            kernels[shape.padded] = pair.network.kernel()
        if basis is not Basis.REFERENCE:
            compare_invariants(certificate, pair, seed=index)
    if trains:
        compare_optimizers(certificate, subject)
    if basis is not Basis.REFERENCE:
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
        quantities=QUANTITIES,
    )


def _check_given(certificate: Certificate, subject: Subject) -> None:
    """Record whether the networks left alone the arrays that they were given.

    They compute on copies, so that all other checks are right nevertheless.
    """
    written = dict.fromkeys(subject.host.written)
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


class PairComparison:
    """Compares the implementation's network with the reference at one shape."""

    def __init__(
        self, certificate: Certificate, pair: NetworkPair, trains: bool
    ) -> None:
        self._certificate, self._pair, self._trains = certificate, pair, trains

    def run(self, seed: int) -> None:
        """Compare at both `weight_points`, with inputs drawn from a seed."""
        pair = self._pair
        rng = np.random.default_rng(seed)
        batch = random_batch(pair.shape, rng)
        for weights in weight_points(pair.spec, pair.cell, seed):
            loaded = pair.load(weights)
            self._round_trip(loaded)
            self._forward(batch, rng)
            if self._trains:
                self._gradients(batch, rng)
                self._loss(batch)

    def _compare(
        self, check: str, found: Array, reference: Array, tensor: str = ""
    ) -> None:
        words = f"{tensor} at {self._pair.shape.words}".strip()
        self._certificate.compare(check, found, reference, words)

    def _compare_states(self, check: str, found: State, reference: State) -> None:
        names = self._pair.cell.info.state_parts
        for name, a, b in zip(names, found, reference, strict=True):
            self._compare(check, a, b, name)

    def _round_trip(self, loaded: Weights) -> None:
        found = self._pair.network.weights()
        for name, tensor in loaded.items():
            self._certificate.require_equal(
                "weights come back", found.get(name, np.empty(0)), tensor, name
            )

    def _forward(self, batch: Batch, rng: np.random.Generator) -> None:
        def of_both(compute: Callable[[Network], Handle[Forward]]) -> list[Forward]:
            return [compute(n).read() for n in (self._pair.network, self._pair.oracle)]

        state, x = self._pair.state(rng), batch.inputs[:, 0]
        found, reference = of_both(lambda n: n.forward(n.place(batch), state))
        self._compare("outputs", found.outputs, reference.outputs)
        self._compare_states("final state", found.state, reference.state)
        # Both must begin with zeros where no state is given.
        found, reference = of_both(lambda n: n.forward(n.place(batch)))
        self._compare("outputs", found.outputs, reference.outputs, "from no state,")
        found, reference = of_both(lambda n: n.step(x, state))
        self._compare("one time step", found.outputs, reference.outputs, "outputs")
        self._compare_states("one time step", found.state, reference.state)

    def _gradients(self, batch: Batch, rng: np.random.Generator) -> None:
        readouts, size = batch.scored.shape[1], self._pair.spec.output_size
        dense = rng.standard_normal((batch.size, readouts, size))
        last = np.zeros_like(dense)
        last[:, -1] = LARGE_COTANGENT * rng.standard_normal((batch.size, size))
        state = self._pair.state(rng)
        d_dense = tuple(rng.standard_normal(part.shape) for part in state)
        d_none = tuple(np.zeros(part.shape) for part in state)
        self._vjps(batch, state, ((dense, d_dense), (last, d_none)))
        if not batch.padded:
            # The gradient to the state at one split point is checked for all of them.
            oracle, middle = self._pair.oracle, batch.time_steps // 2
            first, second = split_at(batch, middle)
            between = oracle.forward(oracle.place(first), state).read().state
            rounded = tuple(part.astype(np.float32) for part in between)
            cut = slice(middle, None) if readouts > 1 else slice(None)
            halves = ((dense[:, cut], d_dense), (last[:, cut], d_none))
            self._vjps(second, rounded, halves, "grad state at split")

    def _vjps(
        self,
        batch: Batch,
        state: State,
        cotangents: tuple[tuple[Array, State], ...],
        of_state: str = "grad initial state",
    ) -> None:
        network, oracle = self._pair.network, self._pair.oracle
        placed, reference = network.place(batch), oracle.place(batch)
        for d_dense, d_final in cotangents:
            # Rounded to float32, so that both sides start from the same numbers.
            d_outputs = d_dense.astype(np.float32)
            d_state = tuple(d.astype(np.float32) for d in d_final)
            found = network.vjp(placed, state, d_outputs, d_state)
            expected = oracle.vjp(reference, state, d_outputs, d_state)
            self._compare_states(of_state, found.state, expected.state)
            self._compare("grad inputs", found.inputs, expected.inputs)
            for name, d_tensor in expected.weights.items():
                check = f"grad {in_layer(name)}"
                self._compare(check, found.weights[name], d_tensor, name)

    def _loss(self, batch: Batch) -> None:
        network, oracle = self._pair.network, self._pair.oracle
        found = network.loss_and_gradients(network.place(batch)).read()
        expected = oracle.loss_and_gradients(oracle.place(batch)).read()
        self._compare("loss", np.array(found.loss), np.array(expected.loss))
        for name, d_tensor in expected.gradients.items():
            self._compare("grad of loss", found.gradients[name], d_tensor, name)
