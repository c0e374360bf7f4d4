"""Initial values: Glorot input matrices, orthogonal recurrent ones, chrono biases.

`canonical` raises the bias of the gate that keeps the state to 1, `zero-bias` leaves
every bias at 0, `chrono` spreads the keeping gate's time constants over the sequence.
All three draw the same matrices from one seed and so differ in biases alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contract import Array, Weights

SCHEMES = ("canonical", "zero-bias", "chrono")


def draw_matrices(
    scheme: str, rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
) -> Weights:
    """Draw `w_ih`, then `w_hh`; leave every other tensor at zero.

    Raises:
        ValueError: If no scheme has that name.
    """
    if scheme not in SCHEMES:
        raise ValueError(
            f"unknown initial values '{scheme}'; choose from {', '.join(SCHEMES)}"
        )
    weights = {name: np.zeros(shape) for name, shape in shapes.items()}
    weights["w_ih"] = glorot_uniform(rng, shapes["w_ih"])
    weights["w_hh"] = orthogonal(rng, shapes["w_hh"])
    return weights


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw [gates, hidden, input] from U(-a, a), a = sqrt(6 / (input + hidden)).

    The fan-out is one gate's, not that of all gates side by side.

    Source: Glorot & Bengio (2010).
    """
    _, hidden_size, input_size = shape
    limit = np.sqrt(6 / (input_size + hidden_size))
    return rng.uniform(-limit, limit, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw an orthogonal matrix for every gate, [gates, hidden, hidden].

    Q of a normal matrix Q R is uniform over the orthogonal matrices (Haar) only where
    the diagonal of R is made positive; a QR routine chooses its signs otherwise.

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
