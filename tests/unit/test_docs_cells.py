"""docs/cells.md says what the code computes: equations, numbers and links."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract import Array, Cell, State, Weights
from implementations.cells.gates import sigmoid
from implementations.cells.gru import Gru, GruResetBefore
from implementations.cells.lstm import Lstm
from implementations.cells.rnn import Rnn

PAGE = Path(__file__).parents[2] / "docs" / "cells.md"
TEXT = PAGE.read_text(encoding="utf-8")
CELLS: dict[str, Cell] = {
    c.info.name: c for c in (Rnn(), Gru(), GruResetBefore(), Lstm())
}
each_cell = pytest.mark.parametrize("name", CELLS)


def table(first_header: str, *, containing: str = "") -> list[list[str]]:
    """Rows of the one table whose header row starts and goes on like this."""
    found = [
        lines
        for block in TEXT.split("\n\n")
        for lines in [block.strip().splitlines()]
        if lines[0].startswith(f"| {first_header} |") and containing in lines[0]
    ]
    assert len(found) == 1, f"{len(found)} tables start with {first_header!r}"
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in found[0][2:]
    ]


def code_blocks() -> list[str]:
    return [b.strip() for b in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)]


# --- links ---------------------------------------------------------------------------


def links() -> list[tuple[str, str]]:
    return re.findall(r"\[([^\]]+)\]\(([^)]+)\)", TEXT)


def test_every_link_leads_to_a_file_and_to_the_name_it_shows() -> None:
    found = links()
    assert len(found) > 10
    for shown, target in found:
        file = (PAGE.parent / target).resolve()
        assert file.is_file(), target
        relative = file.relative_to(PAGE.parents[1]).with_suffix("")
        value: Any = importlib.import_module(".".join(relative.parts))
        for part in shown.strip("`").split("."):
            value = getattr(value, part)
        assert callable(value), shown


@each_cell
def test_every_step_and_backward_step_is_linked(name: str) -> None:
    kind = type(CELLS[name]).__name__
    shown = {text for text, _ in links()}
    assert {f"`{kind}.step`", f"`{kind}.step_backward`"} <= shown


# --- equations -----------------------------------------------------------------------

FUNCTIONS = {"diag": np.diag, "tanh": np.tanh, "σ": sigmoid}
TOKEN = re.compile(r"∂\w/∂\w'|[A-Za-zσ][A-Za-z0-9_]*'?|\d+|[²⊙+()=-]")


def to_python(equation: str) -> str:
    """Write one equation as Python.

    What stands side by side is a product of matrices, and inside `diag(...)` an
    elementwise one. A primed name becomes one with `_`, `∂c/∂h'` becomes `c_by_h`.
    """
    written, previous = "", ""
    open_diags: list[bool] = []
    assert not TOKEN.sub("", equation).strip(), f"cannot read {equation!r}"
    for token in TOKEN.findall(equation):
        operand = token not in "²⊙+()=-" or token == "("
        follows_operand = previous not in ("", *"⊙+(=-", *FUNCTIONS)
        if operand and follows_operand:
            written += " * " if any(open_diags) else " @ "
        if token == "(":
            open_diags.append(previous == "diag")
        elif token == ")":
            open_diags.pop()
        derivative = re.fullmatch(r"∂(\w)/∂(\w)'", token)
        if derivative:
            written += f"{derivative[1]}_by_{derivative[2]}"
        else:
            written += {"²": "**2", "⊙": " * "}.get(token, token.replace("'", "_"))
        previous = token
    return written


def test_equations_become_python() -> None:
    assert to_python("c = f ⊙ c' + W_i (r ⊙ h')") == "c=f * c_+W_i @ (r * h_)"
    assert to_python("J = diag((1 - z) n²) U_z") == "J=diag((1-z) * n**2) @ U_z"
    assert to_python("∂h/∂c' = diag(o) ∂c/∂c'") == "h_by_c=diag(o) @ c_by_c"


def equations(name: str) -> list[str]:
    """Lines of the block of this cell, its own candidate alone."""
    block = next(b for b in code_blocks() if b.startswith(FIRST_LINE[name]))
    lines = []
    for line in block.splitlines():
        equation, _, comment = line.partition("    ")
        owner = re.search(r"candidate of (\S+)", comment)
        if owner is None or owner[1] == name:
            lines.append(equation)
    return lines


FIRST_LINE = {
    "rnn": "h = tanh(",
    "gru": "r = σ(",
    "gru-reset-before": "r = σ(",
    "lstm": "i = σ(",
}


def jacobian_lines(name: str) -> list[str]:
    block = next(b for b in code_blocks() if b.startswith("rnn\nJ = "))
    (lines,) = (
        part.splitlines()[1:]
        for part in block.split("\n\n")
        if part.splitlines()[0] == name
    )
    return re.sub(r"\n +", " ", "\n".join(lines)).splitlines()


def setting(name: str) -> tuple[Weights, Array, State]:
    rng = np.random.default_rng(0)
    shapes = CELLS[name].weight_shapes(3, 4)
    weights = {n: rng.normal(0, 0.7, shape) for n, shape in shapes.items()}
    state = tuple(rng.normal(size=4) for _ in CELLS[name].info.state_parts)
    return weights, rng.normal(size=3), state


def evaluate(
    name: str, lines: list[str], weights: Weights, x: Array, state: State
) -> dict[str, Any]:
    """Every name of the equations with its value."""
    cell = CELLS[name]
    names: dict[str, Any] = {**FUNCTIONS, "x": x}
    for part, value in zip(cell.info.state_parts, state, strict=True):
        names[f"{part}_"] = value
    letters = {"w_ih": "W", "w_hh": "U", "b": "b"}
    for tensor, letter in letters.items():
        for gate, value in zip(cell.info.gates, weights[tensor], strict=True):
            names[letter if name == "rnn" else f"{letter}_{gate}"] = value
    names["b_hn"] = weights.get("b_hn")
    for line in lines:
        exec(to_python(line), names)  # our own documentation
    return names


@each_cell
def test_the_printed_equations_are_the_step(name: str) -> None:
    weights, x, state = setting(name)
    names = evaluate(name, equations(name), weights, x, state)
    after, _ = CELLS[name].step(weights, x[None], tuple(part[None] for part in state))
    for part, value in zip(CELLS[name].info.state_parts, after, strict=True):
        np.testing.assert_allclose(names[part], value[0], rtol=0, atol=1e-14)


@each_cell
def test_the_printed_jacobian_is_the_backward_step(name: str) -> None:
    cell = CELLS[name]
    weights, x, state = setting(name)
    lines = [*equations(name), *jacobian_lines(name)]
    names = evaluate(name, lines, weights, x, state)
    expected = (
        np.block(
            [[names["h_by_h"], names["h_by_c"]], [names["c_by_h"], names["c_by_c"]]]
        )
        if name == "lstm"
        else names["J"]
    )
    # Row k of the Jacobian is the pull-back of the k-th unit vector.
    size = len(expected)
    units = tuple(np.split(np.eye(size), len(state), axis=1))
    repeated = tuple(np.tile(part, (size, 1)) for part in state)
    _, saved = cell.step(weights, np.tile(x, (size, 1)), repeated)
    _, _, rows = cell.step_backward(weights, saved, units)
    np.testing.assert_allclose(np.concatenate(rows, axis=1), expected, atol=1e-14)


# --- numbers -------------------------------------------------------------------------


def counted(formula: str, input_size: int, hidden_size: int) -> int:
    """Evaluate `3 H (I + H) + 6 H`."""
    python = re.sub(r"(?<=[\dH]) (?=[H(])", " * ", formula)
    return int(eval(python, {"I": input_size, "H": hidden_size}))


@pytest.mark.parametrize(("input_size", "hidden_size"), [(1, 32), (10, 20)])
def test_parameter_formulas(input_size: int, hidden_size: int) -> None:
    rows = table("cell", containing="| canonical | torch |")
    assert [row[0].strip("`") for row in rows] == list(CELLS)
    for name, *formulas in rows:
        counts = CELLS[name.strip("`")].parameter_counts(input_size, hidden_size)
        for who, formula in zip(("canonical", "torch", "keras"), formulas, strict=True):
            if who not in counts:
                assert formula == "not shipped"
                continue
            bare = re.sub(r" \(`reset_after=\w+`\)", "", formula)
            assert counted(bare, input_size, hidden_size) == counts[who], (name, who)


def test_parameter_and_operation_numbers() -> None:
    rows = table("cell", containing="operations")
    assert [row[0].strip("`") for row in rows] == list(CELLS)
    for name, canonical, torch, keras, operations, ratio in rows:
        cell = CELLS[name.strip("`")]
        counts = cell.parameter_counts(10, 20)
        assert canonical == str(counts["canonical"])
        assert torch == str(counts.get("torch", "–"))
        assert keras == str(counts["keras"])
        assert operations == str(cell.flops(10, 20))
        assert ratio == f"{cell.flops(10, 20) / Rnn().flops(10, 20):.2f}"


def test_the_keras_example() -> None:
    (count,) = re.findall(r"one input feature has (\d+) parameters", TEXT)
    assert int(count) == Gru().parameter_counts(1, 32)["keras"]


@pytest.mark.parametrize("cell", [Gru(), GruResetBefore(), Lstm()])
def test_time_constants_are_those_of_the_cell(cell: Cell) -> None:
    """Zero weights but for the keeping bias: the candidate is 0, the state decays."""
    assert cell.info.keep_bias is not None
    tensor, row = cell.info.keep_bias
    weights = {n: np.zeros(s) for n, s in cell.weight_shapes(1, 1).items()}
    rows = table("bias b")
    assert len(rows) >= 5
    for bias, gate, half_life, constant, kept in rows:
        weights[tensor][row] = math.log(99) if bias == "ln 99" else float(bias)
        state: State = tuple(np.ones((1, 1)) for _ in cell.info.state_parts)
        shares = [1.0]
        for _ in range(100):
            state, _ = cell.step(weights, np.zeros((1, 1)), state)
            shares.append(state[-1].item())
        assert gate == f"{shares[1]:.3f}"
        assert half_life == f"{math.log(2) / -math.log(shares[1]):.1f}"
        assert constant == f"{1 / (1 - shares[1]):.1f}"
        assert kept == f"{shares[100]:.1e}"


def test_what_the_page_says_of_framework_matrices() -> None:
    rng = np.random.default_rng(0)
    size = 200
    uniform = rng.uniform(-1, 1, (size, size)) / math.sqrt(size)
    radius = np.abs(np.linalg.eigvals(uniform)).max()
    # The circular law is a limit: at this size the radius is within a tenth of it.
    assert abs(radius - 0.577) < 0.06
    assert f"{1 / math.sqrt(3):.3f}^t, which is {3**-50:.1e} at t = 100" in TEXT
    for gates in (3, 4):
        rows = np.linalg.qr(rng.standard_normal((gates * size, size)))[0].T
        block = rows[:, :size]
        rms = math.sqrt((np.linalg.svd(block, compute_uv=False) ** 2).mean())
        assert abs(rms - 1 / math.sqrt(gates)) < 0.02
        assert f"1/√{gates}" in TEXT
