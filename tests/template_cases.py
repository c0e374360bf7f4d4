"""Compare layers that `rnn-harness new` writes with the reference at one shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from harness.contract import Inputs, Target, TrainableNetwork
from harness.loading import build_network, load_cell
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from tests.backend_cases import SPEC, draw_weights, errors_against_reference
from tests.helpers import REGISTRY

CELLS = ["rnn", "rnn-relu", "gru", "gru-reset-before", "lstm"]
ROUNDING = 5e-6
"""Of float32 over 9 time steps."""


def assert_template_computes(framework: str, cell: str, folder: Path) -> None:
    """Assert that the template of a layer is right, with padding and gradients."""
    name = f"own-{cell}"
    file = folder / f"{framework}-{cell}.py".replace("-", "_")
    new = NewPlugin("implementation", name, framework, cell, file)
    registry = Registry.discover([write_plugin(new, REGISTRY)])
    assert registry.problems == []
    assert registry.implementation(name).cells == (cell,)
    reals = Inputs("reals", 2)
    spec = replace(SPEC, cell=cell, inputs=reals, num_layers=1, target=Target.REAL)
    built = build_network(registry, name, spec, load_cell(registry, cell), "cpu")
    network = cast(TrainableNetwork, built)
    network.load_weights(draw_weights(spec))
    errors = errors_against_reference(network, spec)
    assert "d_initial 0" in errors
    wrong = {name: error for name, error in errors.items() if error > ROUNDING}
    assert not wrong, wrong
