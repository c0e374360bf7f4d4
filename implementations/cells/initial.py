"""Named initial values, the same for every implementation.

`canonical` raises the bias of the gate that keeps the state to 1, `zero-bias` leaves
every bias at 0, `chrono` spreads the keeping gate's time constants over the sequence.
These three draw the same matrices from one seed, and differ only in biases.
`native-torch` and `native-keras` draw what the layers of torch and Keras start from,
also for cells that the framework does not ship.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Array, Weights

NATIVE_SCHEMES = ("native-torch", "native-keras")
SCHEMES = ("canonical", "zero-bias", "chrono", *NATIVE_SCHEMES)


def draw_weights(
    scheme: str, rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
) -> Weights:
    """Draw the matrices of a scheme, and the biases where they are drawn too.

    Biases are zero except for `native-torch`; a cell that raises a bias does so itself.

    Raises:
        ValueError: If no scheme has that name.
    """
    if scheme not in SCHEMES:
        raise ValueError(
            f"unknown initial values '{scheme}'; choose from {', '.join(SCHEMES)}"
        )
    if scheme == "native-torch":
        return _native_torch(rng, shapes)
    weights = {name: np.zeros(shape) for name, shape in shapes.items()}
    for name, draw in (("w_ih", glorot_uniform), ("w_hh", orthogonal)):
        gates, hidden_size, size = shape = shapes[name]
        if scheme == "native-keras":
            # One matrix is drawn for all gates, with their rows below each other.
            shape = 1, gates * hidden_size, size
        weights[name] = draw(rng, shape).reshape(shapes[name])
    return weights


def _native_torch(
    rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
) -> Weights:
    """Draw every tensor of torch's layer, both biases too, from U(-1/√H, 1/√H).

    Only the sum of a gate's two biases matters; it is the canonical bias. The second
    bias of a GRU's candidate is inside the reset product and is a tensor of its own.
    """
    limit = shapes["b"][-1] ** -0.5
    weights = {n: rng.uniform(-limit, limit, shape) for n, shape in shapes.items()}
    second = rng.uniform(-limit, limit, shapes["b"])
    if "b_hn" in shapes:
        second[-1] = 0  # the candidate is the last block
    weights["b"] += second
    return weights


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw [matrices, rows, columns] from U(-a, a), a = sqrt(6 / (rows + columns)).

    The fan-out is that of one matrix: of a gate, or of all gates stacked.

    Source: Glorot & Bengio (2010).
    """
    _, rows, columns = shape
    limit = np.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw matrices with orthonormal columns, [matrices, rows, columns].

    Q of a normal matrix Q R is uniform over these matrices (Haar) only if the diagonal
    of R is made positive; a QR routine chooses other signs.

    Source: Saxe, McClelland & Ganguli (2014); for the signs, Mezzadri (2007).
    """
    q, r = np.linalg.qr(rng.standard_normal(shape))
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))
    oriented: Array = q * signs[:, None, :]
    return oriented


def chrono_bias(rng: np.random.Generator, hidden_size: int, time_steps: int) -> Array:
    """Draw log U(1, T - 1) for every unit, T = `time_steps` but at least 3.

    A keeping gate at bias log u has the value u / (1 + u) and the time constant 1 + u,
    which then is uniform over [2, T].

    Source: Tallec & Ollivier (2018), arXiv:1804.11188.
    """
    spread: Array = np.log(rng.uniform(1, max(time_steps, 3) - 1, hidden_size))
    return spread
