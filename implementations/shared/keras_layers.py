"""What both backends of Keras ask of a layer before it is called."""

from __future__ import annotations

from typing import Any

from harness.errors import PluginError


def check_stateless(layer: Any) -> None:
    """Check that a layer of Keras starts from the state that each call gives it.

    Raises:
        PluginError: If it, or a layer within it, keeps its last state.
    """
    for part in layer._flatten_layers():
        if getattr(part, "stateful", False):
            raise PluginError(
                type(layer).__name__,
                "keeps its state from call to call (stateful=True); expected a layer "
                "that starts from initial_state; build it with stateful=False",
            )
