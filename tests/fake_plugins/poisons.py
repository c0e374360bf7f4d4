"""A cell and a task that change the process in which they are used."""

import numpy as np

from harness import declare_cell, declare_implementation, declare_task
from tasks.adding import Adding

declare_cell("poisons", factory="poisons:poisoned_cell")
declare_implementation(
    "of-poisons", framework="numpy", cells=["poisons"], factory="poisons:network"
)
declare_task("poisons", factory="poisons:Poisons")


def poisoned_cell():
    from implementations.cells.gru import Gru

    np.add = np.subtract
    return Gru()


def network(spec, cell, device):
    from implementations.numpy_reference.network import NumpyNetwork

    return NumpyNetwork(spec, cell, device)


class Poisons(Adding):
    def sample(self, rng, *, batch, length):
        np.seterr(all="raise")
        return super().sample(rng, batch=batch, length=length)
