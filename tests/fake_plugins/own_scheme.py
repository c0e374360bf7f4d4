"""A cell of a plugin with a scheme of initial values that no other cell has."""

from dataclasses import replace

from harness import declare_cell
from implementations.cells.rnn import Rnn

declare_cell(
    "rnn-forgetful",
    factory="own_scheme:Forgetful",
    inits=["canonical", "chrono", "no-recurrence"],
    summary="the vanilla RNN, whose recurrent matrix may start at zero",
)


class Forgetful(Rnn):
    """h = tanh(W_ih x + W_hh h' + b), from W_hh = 0 if a suite asks for it."""

    info = replace(Rnn.info, name="rnn-forgetful")

    def initial_weights(self, scheme, rng, sizes):
        none = scheme == "no-recurrence"
        weights = super().initial_weights("canonical" if none else scheme, rng, sizes)
        if none:
            weights["w_hh"][:] = 0
        return weights
