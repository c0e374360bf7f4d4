"""min-gru with neither a reference nor equations, and two layers that disagree."""

from dataclasses import replace

from harness import declare_cell, declare_implementation

declare_cell("min-gru-bare", factory="min_gru_bare:cell", reference=False)
for name, layer in (
    ("bare-parallel", "parallel"),
    ("bare-exchanged", "exchanged"),
    ("bare-raises", "raises"),
):
    declare_implementation(
        name, framework="torch", cells=["min-gru-bare"], layer=f"min_gru_bare:{layer}"
    )


def cell():
    import min_gru  # here, so that its declarations are made once

    found = min_gru.MinGru()
    found.info = replace(found.info, name="min-gru-bare")
    return found


def parallel(cell, input_size, hidden_size):
    import min_gru

    return min_gru.layer(cell, input_size, hidden_size)


def exchanged(cell, input_size, hidden_size):
    import min_gru_mistakes

    return min_gru_mistakes.exchanged_gate(cell, input_size, hidden_size)


def raises(cell, input_size, hidden_size):
    raise RuntimeError("not made yet")
