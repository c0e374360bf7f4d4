"""Which recurrent kernel runs, read from the traced graph."""

from __future__ import annotations

from typing import Any

_LOOPS = {"While", "StatelessWhile"}


def kernel_of(graph: Any) -> str:
    """Return "cuDNN", "TensorFlow while loop" or "TensorFlow operations".

    Args:
        graph: A `GraphDef`; the functions that its nodes call count as part of it.

    If a graph has both, such as one of two layers that differ, both are named.
    """
    seen = {node.op for node in graph.node}
    for function in graph.library.function:
        seen |= {node.op for node in function.node_def}
    found = []
    if any(op.startswith("CudnnRNN") for op in seen):
        found.append("cuDNN")
    if seen & _LOOPS:
        found.append("TensorFlow while loop")
    return " and ".join(found) or "TensorFlow operations"
