"""docs/cells.md agrees with the code in equations, numbers and links."""

from __future__ import annotations

import importlib
import math
import re
from typing import Any

import numpy as np
import pytest

from harness.contract import Array, LayerSizes, ReferenceCell, State, Weights
from harness.measure.gradients import measure_gradients
from harness.measure.problem import Problem
from harness.measure.subject import ORACLE
from harness.trial import Trial
from implementations.cells.gates import sigmoid
from implementations.cells.gru import Gru, GruResetBefore
from implementations.cells.initial import SCHEMES
from implementations.cells.lstm import Lstm
from implementations.cells.rnn import Rnn
from tests import helpers
from tests.built_in_cells import CELLS
from tests.helpers import REGISTRY

PAGE = helpers.ROOT / "docs" / "cells.md"
TEXT = PAGE.read_text(encoding="utf-8")
each_cell = pytest.mark.parametrize("name", CELLS)


def table(first_header: str, *, containing: str = "") -> list[list[str]]:
    """Return the rows of the one table with this first header and this text."""
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
    """Return the links to code, without pictures and anchors of the page."""
    return re.findall(r"(?<!!)\[([^\]]+)\]\(([^)#]+)\)", TEXT)


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


def test_every_picture_and_anchor_on_the_page_exists() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert pictures == ["pictures/initial-values.svg"]
    assert all((PAGE.parent / picture).is_file() for picture in pictures)
    places = re.findall(r"\]\(#([^)]+)\)", TEXT)
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    assert set(places) <= {h.lower().replace(" ", "-") for h in headings}


@each_cell
def test_the_page_links_every_step_and_backward_step(name: str) -> None:
    kind = type(CELLS[name]).__name__
    shown = {text for text, _ in links()}
    assert {f"`{kind}.step`", f"`{kind}.step_backward`"} <= shown


# --- equations -----------------------------------------------------------------------

FUNCTIONS = {
    "diag": np.diag,
    "relu": lambda a: np.where(a > 0, a, 0),
    "tanh": np.tanh,
    "σ": sigmoid,
}
TOKEN = re.compile(r"∂\w/∂\w'|[A-Za-zσ][A-Za-z0-9_]*'?|\d+|[²⊙+()=>-]")


def to_python(equation: str) -> str:
    """Write one equation as Python.

    Factors side by side are a product of matrices, and inside `diag(...)` an
    elementwise one. A primed name becomes one with `_`, `∂c/∂h'` becomes `c_by_h`.
    """
    written, previous = "", ""
    open_diags: list[bool] = []
    assert not TOKEN.sub("", equation).strip(), f"cannot read {equation!r}"
    for token in TOKEN.findall(equation):
        operand = token not in "²⊙+()=>-" or token == "("
        follows_operand = previous not in ("", *"⊙+(=>-", *FUNCTIONS)
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


def test_equations_are_translated_to_python() -> None:
    assert to_python("c = f ⊙ c' + W_i (r ⊙ h')") == "c=f * c_+W_i @ (r * h_)"
    assert to_python("J = diag((1 - z) n²) U_z") == "J=diag((1-z) * n**2) @ U_z"
    assert to_python("∂h/∂c' = diag(o) ∂c/∂c'") == "h_by_c=diag(o) @ c_by_c"


def equations(name: str) -> list[str]:
    """Return the lines of the block of this cell, with its own candidate only."""
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
    "rnn-relu": "h = relu(",
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
    """Return the value of every name in the equations."""
    cell = CELLS[name]
    names: dict[str, Any] = {**FUNCTIONS, "x": x}
    for part, value in zip(cell.info.state_parts, state, strict=True):
        names[f"{part}_"] = value
    letters = {"w_ih": "W", "w_hh": "U", "b": "b"}
    for tensor, letter in letters.items():
        for gate, value in zip(cell.info.gates, weights[tensor], strict=True):
            gated = len(cell.info.gates) > 1
            names[f"{letter}_{gate}" if gated else letter] = value
    names["b_hn"] = weights.get("b_hn")
    for line in lines:
        exec(to_python(line), names)  # this text is our documentation
    return names


@each_cell
def test_the_printed_equations_compute_the_step(name: str) -> None:
    weights, x, state = setting(name)
    names = evaluate(name, equations(name), weights, x, state)
    after, _ = CELLS[name].step(weights, x[None], tuple(part[None] for part in state))
    for part, value in zip(CELLS[name].info.state_parts, after, strict=True):
        np.testing.assert_allclose(names[part], value[0], rtol=0, atol=1e-14)


@each_cell
def test_the_printed_jacobian_agrees_with_the_backward_step(name: str) -> None:
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
def test_the_parameter_formulas_give_the_counts(
    input_size: int, hidden_size: int
) -> None:
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


def test_the_printed_parameters_and_operations_are_those_of_the_cells() -> None:
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


def test_the_keras_example_gives_the_count() -> None:
    (count,) = re.findall(r"one input feature has (\d+) parameters", TEXT)
    assert int(count) == Gru().parameter_counts(1, 32)["keras"]


@pytest.mark.parametrize("cell", [Gru(), GruResetBefore(), Lstm()])
def test_time_constants_are_those_of_the_cell(cell: ReferenceCell) -> None:
    """All weights but the keeping bias are zero, so the state decays."""
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


@pytest.mark.slow
def test_the_printed_facts_about_framework_matrices_hold() -> None:
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


# --- initial values ------------------------------------------------------------------

SIZES = LayerSizes(input_size=2, hidden_size=64, time_steps=200)
SEEDS = range(5)


def started() -> list[tuple[ReferenceCell, list[str], list[str]]]:
    """Return cell, schemes and figures of each row of the table of initial values."""
    return [
        (CELLS[name.strip("`")], re.findall(r"`([^`]+)`", schemes), figures)
        for name, schemes, *figures in table("cell", containing="initial values")
    ]


def drawn(cell: ReferenceCell, scheme: str) -> list[Weights]:
    return [
        cell.initial_weights(scheme, np.random.default_rng(seed), SIZES)
        for seed in SEEDS
    ]


def radius(matrices: Array) -> Array:
    return np.abs(np.linalg.eigvals(matrices)).max(axis=-1)


def jacobian_at_rest(cell: ReferenceCell, weights: Weights) -> Array:
    parts = len(cell.info.state_parts)
    size = parts * SIZES.hidden_size
    zero = (np.zeros((size, SIZES.hidden_size)),) * parts
    _, saved = cell.step(weights, np.zeros((size, SIZES.input_size)), zero)
    units = tuple(np.split(np.eye(size), parts, axis=1))
    return np.concatenate(cell.step_backward(weights, saved, units)[2], axis=1)


def measured(cell: ReferenceCell, scheme: str) -> list[str]:
    """Return the figures of a scheme in the table, without the horizon."""
    draws = drawn(cell, scheme)
    singular = [np.linalg.svd(w["w_hh"], compute_uv=False)[:, 0] for w in draws]
    constant, at_rest = "–", "–"
    if cell.info.keep_bias is not None:
        tensor, row = cell.info.keep_bias
        constants = np.array([1 + np.exp(w[tensor][row]) for w in draws])
        constant = f"{np.median(constants):.1f}"
        if np.ptp(constants) > 0.05:
            constant += f" [{constants.min():.1f}, {constants.max():.1f}]"
    if cell.info.name != "rnn-relu":
        radii = [radius(jacobian_at_rest(cell, w)) for w in draws]
        at_rest = f"{np.mean(radii):.3f}"
    of_u = np.mean([radius(w["w_hh"]) for w in draws])
    return [f"{of_u:.2f}", f"{np.mean(singular):.2f}", constant, at_rest]


def test_every_cell_and_scheme_is_in_the_table_of_initial_values_once() -> None:
    found = [(cell.info.name, s) for cell, schemes, _ in started() for s in schemes]
    said = [name for name in CELLS if name != "gru-reset-before"]
    assert len(found) == len(set(found))
    assert set(found) == {(name, scheme) for name in said for scheme in SCHEMES}


@pytest.mark.slow
@each_cell
def test_the_table_of_initial_values_has_the_measured_figures(name: str) -> None:
    """A row holds for each scheme that it names; both GRUs have the same rows."""
    listed = "gru" if name == "gru-reset-before" else name
    for cell, schemes, figures in started():
        if cell.info.name == listed:
            for scheme in schemes:
                assert measured(CELLS[name], scheme) == figures[:-1], (name, scheme)


def test_schemes_in_one_row_draw_the_same_values() -> None:
    for cell, (first, *others), _ in started():
        for scheme in others:
            for one, other in zip(drawn(cell, first), drawn(cell, scheme), strict=True):
                for name, tensor in one.items():
                    np.testing.assert_array_equal(other[name], tensor)


@pytest.mark.slow
def test_the_horizons_of_initial_values_are_those_measured_for_one_seed() -> None:
    """Measure one of the five seeds, which is in the printed range."""
    for cell, schemes, figures in started():
        trial = Trial(
            "gradients",
            ORACLE,
            cell.info.name,
            dtype="float64",
            task="adding",
            length=200,
            hidden_size=64,
            seed=0,
            data_seed=0,
            init=schemes[0],
        )
        found = measure_gradients(Problem(REGISTRY, trial), None).readings[0]
        horizon = found.values["horizon_loss"]
        numbers = [int(n) for n in re.findall(r"\d+", figures[-1])]
        assert min(numbers) <= horizon <= max(numbers), (cell.info.name, schemes)
        if figures[-2] not in ("–", "1.000"):
            assert min(numbers) < math.log(1e-3) / math.log(float(figures[-2]))
