"""A cell's equations compiled by torch.compile, once for all lengths and batches."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.contract import Cell, Equations
from harness.errors import UnavailableError
from implementations.torch_backend.loop import Layer, State

OLDEST = (2, 13)
"""The compiler's loops are new; earlier versions were not tried."""


def layer(
    equations: Equations, cell: Cell, input_size: int, hidden_size: int
) -> nn.Module:
    """Return a layer of any cell that has equations.

    Raises:
        UnavailableError: If this torch is too old; in the first call, if there is no
            compiler for its device.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UnavailableError(
            "torch", f"torch {torch.__version__} is here; this needs {oldest} or later"
        )
    # Imported here because these modules need parts that an older torch lacks.
    from implementations.torch_backend.graphs import graphs_of, over_time
    from implementations.torch_backend.recurrence import Recurrence

    recurrence = Recurrence(equations, cell.info.gates)
    graphs = graphs_of(recurrence)
    names = recurrence.used(cell, input_size, hidden_size)

    def compiled(
        w: Mapping[str, Tensor], a: Tensor, state: State
    ) -> tuple[Tensor, State]:
        _check_compiler(a.device.type)
        return over_time(graphs, {name: w[name] for name in names}, a, state)

    return Layer(cell, input_size, hidden_size, compiled)


@functools.cache
def _check_compiler(device: str) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    here = f"torch {torch.__version__} compiles for {device} with"
    if device == "cuda" and not has_triton():
        raise UnavailableError("torch", f"{here} triton, which is not here")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UnavailableError(
            "torch",
            f"{here} a C++ compiler, which is missing here: neither g++ nor one that "
            "CXX names",
        ) from error
