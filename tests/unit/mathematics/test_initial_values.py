"""Schemes of initial values: distributions, suites, plans, runs and the figure."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.analysis.learning.initial_values import initial_panels, initial_rows
from harness.analysis.run import JudgedRun
from harness.analysis.summary import summarize
from harness.contract import (
    Array,
    Inputs,
    LayerSizes,
    NetworkSpec,
    Readout,
    Target,
    Weights,
)
from harness.declarations import INITS
from harness.errors import MisuseError
from harness.machine.pinning import worker_environment
from harness.measure.certificate.network_pair import weight_points
from harness.measure.gradients import measure_gradients
from harness.measure.problem import Problem
from harness.measure.subject import ORACLE
from harness.report.figures.initial_values import draw_initial_values
from harness.report.figures.style import Palette, drawing
from harness.report.tables.initial_values import initial_values_table
from harness.run.plan.plan import Plan, make_plan
from harness.store import Reading, RunFolder
from harness.suite import Suite, load_suite
from harness.trial import GradientsSettings, Trial
from implementations.cells.gru import Gru
from implementations.cells.initial import SCHEMES
from tests import helpers
from tests.built_in_cells import CELLS
from tests.fake_runs import Writer
from tests.helpers import REGISTRY

each_cell = pytest.mark.parametrize("name", CELLS)


@each_cell
def test_a_built_in_cell_offers_every_scheme_that_it_knows(name: str) -> None:
    assert REGISTRY.cell(name).inits == SCHEMES


def test_a_cell_that_lists_no_schemes_offers_those_that_a_certificate_draws() -> None:
    drawn = []

    class Watched(Gru):
        def initial_weights(
            self, scheme: str, rng: np.random.Generator, sizes: LayerSizes
        ) -> Weights:
            drawn.append(scheme)
            return super().initial_weights(scheme, rng, sizes)

    inputs = Inputs("reals", 2)
    spec = NetworkSpec("gru", inputs, 3, 1, Readout.LAST, Target.REAL)
    assert list(weight_points(spec, Watched(), seed=0))
    assert tuple(drawn) == INITS


# --- distributions, compared with the layers of frameworks ----------------------------

SIZES = LayerSizes(input_size=6, hidden_size=64, time_steps=50)
DRAWS, KERAS_DRAWS = 24, 6


def ours(name: str, scheme: str) -> list[Weights]:
    # Seeds that neither framework uses.
    return [
        CELLS[name].initial_weights(scheme, np.random.default_rng([seed, 7]), SIZES)
        for seed in range(DRAWS)
    ]


@pytest.mark.slow
@each_cell
@pytest.mark.parametrize("scheme", SCHEMES)
def test_initial_values_are_float64_in_the_declared_shapes(
    name: str, scheme: str
) -> None:
    shapes = CELLS[name].weight_shapes(SIZES.input_size, SIZES.hidden_size)
    for weights in ours(name, scheme):
        assert {n: w.shape for n, w in weights.items()} == shapes
        assert list(weights) == list(shapes)
        assert {w.dtype for w in weights.values()} == {np.dtype("float64")}


@functools.cache
def of_torch(name: str) -> list[Weights]:
    """Return initial values of torch, with the two biases of a gate added."""
    torch = pytest.importorskip("torch")
    gates = len(CELLS[name].info.gates)
    size = SIZES.input_size, SIZES.hidden_size
    found = []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        if name == "rnn-relu":
            layer = torch.nn.RNN(*size, nonlinearity="relu")
        else:
            layer = getattr(torch.nn, name.upper())(*size)
        w_ih, w_hh, b_ih, b_hh = (
            p.detach().double().numpy().reshape(gates, SIZES.hidden_size, *p.shape[1:])
            for p in layer.parameters()
        )
        weights = {"w_ih": w_ih, "w_hh": w_hh, "b": b_ih + b_hh}
        if name == "gru":
            weights["b"][2], weights["b_hn"] = b_ih[2], b_hh[2]
        found.append(weights)
    return found


@pytest.fixture(name="of_keras", scope="module")
def keras_values(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Return the initial values of Keras layers, drawn in their own process."""
    backend = next(
        (b for b in ("tensorflow", "jax") if importlib.util.find_spec(b)), None
    )
    if backend is None or importlib.util.find_spec("keras") is None:
        pytest.skip("no module 'keras' with a backend")
    file = tmp_path_factory.mktemp("keras") / "values.npz"
    sizes = (SIZES.input_size, SIZES.hidden_size, KERAS_DRAWS)
    script = helpers.HERE / "keras_initial_values.py"
    subprocess.run(
        [sys.executable, str(script), str(file), *map(str, sizes)],
        env={**worker_environment(1), "KERAS_BACKEND": backend},
        check=True,
    )
    return np.load(file)


def from_keras(values: Mapping[str, Any], name: str) -> list[Weights]:
    """Split (I, k H) and (H, k H) of Keras into gates; its GRU orders z, r, h."""
    gates = len(CELLS[name].info.gates)
    order = [1, 0, 2] if name.startswith("gru") else list(range(gates))

    def split(tensor: Array) -> Array:
        blocks = tensor.astype("float64").reshape(len(tensor), gates, -1)
        return blocks.transpose(1, 2, 0)[order]

    found = []
    for draw in range(KERAS_DRAWS):
        w, u, b = (
            values[f"{name}/{draw}/{tensor}"]
            for tensor in ("kernel", "recurrent_kernel", "bias")
        )
        biases = b.reshape(-1, gates, SIZES.hidden_size)[:, order]
        weights = {"w_ih": split(w), "w_hh": split(u), "b": biases[0]}
        if name == "gru":
            weights["b_hn"] = biases[1, 2]
            assert not biases[1, :2].any()
        found.append(weights)
    return found


def alike(found: list[Weights], expected: list[Weights]) -> None:
    """Compare draws with draws, as distributions for each gate and as matrices."""
    assert set(found[0]) == set(expected[0])
    for tensor in expected[0]:
        one = np.stack([w[tensor] for w in found])
        other = np.stack([w[tensor] for w in expected])
        assert one.shape[1:] == other.shape[1:]
        if tensor == "b_hn":
            one, other = one[:, None], other[:, None]
        for gate in range(one.shape[1]):
            same_distribution(one[:, gate].ravel(), other[:, gate].ravel(), tensor)
    # The largest singular value of one such matrix varied by 0.03, the radius by
    # 0.04; these are means over at least 18 matrices on either side.
    np.testing.assert_allclose(spectrum(found), spectrum(expected), atol=0.03)
    np.testing.assert_allclose(radius(found), radius(expected), atol=0.05)


def same_distribution(one: Array, other: Array, tensor: str) -> None:
    """Compare moments, range and the whole distribution of many values.

    The seeds are fixed, so the result is always the same. Five standard errors of
    a variance are 5 sqrt(2 / n), or less for the flat distributions here.
    """
    if (other == other[0]).all():
        np.testing.assert_array_equal(np.unique(one), other[0], err_msg=tensor)
        return
    count = min(len(one), len(other))
    error = 5 * other.std() * math.sqrt(2 / count)
    assert abs(one.mean() - other.mean()) < error, tensor
    assert abs(one.var() / other.var() - 1) < 5 * math.sqrt(4 / count), tensor
    assert stats.ks_2samp(one, other).pvalue > 1e-3, tensor


def spectrum(draws: list[Weights]) -> Array:
    """Return the mean singular values of U over draws and gates, in falling order."""
    values = [np.linalg.svd(w["w_hh"], compute_uv=False) for w in draws]
    return np.mean(values, axis=(0, 1))


def radius(draws: list[Weights]) -> float:
    values = [np.abs(np.linalg.eigvals(w["w_hh"])).max(axis=-1) for w in draws]
    return float(np.mean(values))


@pytest.mark.parametrize("name", ["rnn", "rnn-relu", "gru", "lstm"])
def test_the_scheme_native_torch_draws_the_initial_values_of_torch(name: str) -> None:
    found, expected = ours(name, "native-torch"), of_torch(name)
    alike(found, expected)
    limit = SIZES.hidden_size**-0.5
    for draws in (found, expected):
        for tensor, times in {"w_ih": 1, "w_hh": 1, "b": 2, "b_hn": 1}.items():
            if tensor in draws[0]:
                largest = max(np.abs(w[tensor]).max() for w in draws)
                # Of n values from U(-a, a) the largest is a n / (n + 1) on average; of
                # sums of two the tail is thin, so more is allowed.
                assert (0.98 if times == 1 else 0.7) < largest / (times * limit) <= 1


def test_native_torch_applies_the_rule_of_torch_to_a_cell_that_torch_lacks() -> None:
    """It is a GRU with the second bias of the candidate added to the first."""
    expected = [
        {**w, "b": w["b"] + np.stack([0 * w["b_hn"], 0 * w["b_hn"], w["b_hn"]])}
        for w in of_torch("gru")
    ]
    for weights in expected:
        del weights["b_hn"]
    alike(ours("gru-reset-before", "native-torch"), expected)


@pytest.mark.slow
@each_cell
def test_the_scheme_native_keras_draws_the_initial_values_of_keras(
    of_keras: Mapping[str, Any], name: str
) -> None:
    found, expected = ours(name, "native-keras"), from_keras(of_keras, name)
    alike(found, expected)
    gates = len(CELLS[name].info.gates)
    limit = math.sqrt(6 / (SIZES.input_size + gates * SIZES.hidden_size))
    for draws in (found, expected):
        assert (
            0.98 * limit < max(np.abs(w["w_ih"]).max() for w in draws) < 1.00001 * limit
        )
        for w in draws:
            # The columns of all gates together are orthonormal, in float32.
            u = w["w_hh"].reshape(-1, SIZES.hidden_size)
            np.testing.assert_allclose(u.T @ u, np.eye(SIZES.hidden_size), atol=1e-5)
        if gates > 1:
            # Of one gate they have the RMS 1/√k, and are at most 2 √(1/k (1 - 1/k)).
            singular = spectrum(draws)
            assert math.sqrt((singular**2).mean()) == pytest.approx(gates**-0.5, 0.01)
            edge = 2 * math.sqrt((1 - 1 / gates) / gates)
            assert singular[0] == pytest.approx(edge, abs=0.03)
            assert radius(draws) == pytest.approx(gates**-0.5, abs=0.06)


# --- the section of a suite ----------------------------------------------------------

SECTION = """\
name = "starts"
why = "For tests."

[[gradients]]
task = "adding"
length = 12
cells = ["rnn", "lstm"]
init = ["canonical", "native-torch"]
hidden_size = 8
seeds = [0, 1]
"""


def load(
    text: str, folder: Path, *settings: str, seeds: list[int] | None = None
) -> Suite:
    file = helpers.write(folder / "suite.toml", text)
    return load_suite(str(file), REGISTRY, settings, seeds)


def test_a_gradients_section_names_one_or_several_of_each(tmp_path: Path) -> None:
    (section,) = load(SECTION, tmp_path).gradients
    assert section.length == (12,)
    assert section.init == ("canonical", "native-torch")
    one = re.sub(r"init = .*", 'init = "chrono"', SECTION)
    assert load(one, tmp_path).gradients[0].init == ("chrono",)
    none = re.sub(r"init = .*\n", "", SECTION)
    assert load(none, tmp_path).gradients[0].init == ("canonical",)
    several = load(SECTION, tmp_path, "gradients.length=[5, 7]", seeds=[3])
    assert several.gradients[0].length == (5, 7)
    assert several.gradients[0].seeds == (3,)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("length = 12", "length = 0", "gradients[0].length"),
        ("length = 12", "length = []", "gradients[0].length: "),
        ("length = 12", "length = 1", "gradients[0].length: adding: length must be"),
        ('"adding"', '"addin"', "gradients[0].task: unknown task 'addin'; did you"),
        ('"lstm"', '"ltsm"', "gradients[0].cells: unknown cell 'ltsm'; did you mean"),
        (
            '"native-torch"',
            '"torch"',
            "gradients[0].init: cell 'rnn' has no initial values 'torch'; did you",
        ),
        ('["canonical", "native-torch"]', "[]", "gradients[0].init: "),
        ("hidden_size = 8", "hidden_size = 0", "gradients[0].hidden_size: should be"),
        ("hidden_size = 8", "", "gradients[0].hidden_size: missing; give a value"),
        ("[0, 1]", "[]", "gradients[0].seeds"),
        ("seeds", "batch = 4\nseeds", "gradients[0].batch: unknown key"),
        ("hidden_size = 8", "hiden_size = 8", "did you mean 'hidden_size'?"),
        ("[[gradients]]", "[gradients]", "gradients: write [[gradients]] for each"),
        ("[[gradients]]", "[[gradient]]", "unknown key; did you mean 'gradients'?"),
        ("seeds", "task_options = {gap = 1}\nseeds", "takes no option 'gap'"),
    ],
)
def test_a_mistake_in_a_section_is_reported(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    assert before in SECTION
    with pytest.raises(MisuseError) as raised:
        load(SECTION.replace(before, after), tmp_path)
    assert message in str(raised.value)


# --- plans ---------------------------------------------------------------------------


def plan(suite: Suite, expression: str | None = None) -> Plan:
    return make_plan(suite, REGISTRY, "cpu", expression=expression, choices={})


def test_gradients_sections_plan_no_learning_timing_or_certificate(
    tmp_path: Path,
) -> None:
    found = plan(load(SECTION, tmp_path))
    assert not found.certificates
    assert not found.speed
    assert not found.learning
    asked = {(t.cell, t.init, t.seed) for t in found.independent["gradients"]}
    assert len(found.independent["gradients"]) == len(asked) == 8
    assert {t.measure for t in found.independent["gradients"]} == {"gradients"}
    assert {(t.implementation, t.dtype) for t in found.independent["gradients"]} == {
        (ORACLE, "float64")
    }
    assert len({t.label for t in found.independent["gradients"]}) == 8


def test_a_trial_that_is_asked_for_twice_is_planned_once(tmp_path: Path) -> None:
    section = SECTION[SECTION.index("[[") :]
    assert len(plan(load(SECTION + section, tmp_path)).independent["gradients"]) == 8


def test_a_filter_keeps_the_initial_values_that_it_names(tmp_path: Path) -> None:
    suite = load(SECTION + helpers.learning(), tmp_path)
    both = plan(suite, "gradients and lstm and native-torch")
    assert {(t.cell, t.init) for t in both.independent["gradients"]} == {
        ("lstm", "native-torch")
    }
    assert not both.learning
    only = plan(suite, "learning and seed1")
    assert not only.independent["gradients"]
    assert len(only.learning) == 1
    with pytest.raises(MisuseError, match="no trial has the word 'chrono'"):
        plan(suite, "chrono")


def test_the_built_in_suite_measures_every_scheme_of_every_cell() -> None:
    suite = load_suite("initial-values", REGISTRY)
    found = {(t.cell, t.init) for t in plan(suite).independent["gradients"]}
    assert found == {(cell, scheme) for cell in CELLS for scheme in SCHEMES}


# --- measure and run -----------------------------------------------------------------


def trial(cell: str, init: str, seed: int = 0, **changes: Any) -> Trial:
    found = Trial(
        "gradients",
        ORACLE,
        cell,
        dtype="float64",
        task="adding",
        length=12,
        hidden_size=8,
        seed=seed,
        data_seed=seed,
        init=init,
    )
    return replace(found, **changes)


def test_only_initial_values_are_measured_without_trained_weights() -> None:
    problem = Problem(REGISTRY, trial("gru", "chrono"))
    alone = measure_gradients(problem, None)
    both = measure_gradients(problem, problem.initial_weights())
    assert [r.split for r in alone.readings] == ["initial", "initial"]
    assert both.readings[:2] == alone.readings
    assert [r.split for r in both.readings[2:]] == ["trained", "trained"]
    assert [r.values for r in both.readings[2:]] == [r.values for r in alone.readings]


def test_the_relu_network_with_the_identity_loses_gradient_only_once() -> None:
    """Units at 0 pass no gradient on, and the others all of it, at any lag."""
    start = trial("rnn-relu", "canonical", hidden_size=64, length=200)
    _, curves = measure_gradients(Problem(REGISTRY, start), None).readings
    _, first, *others = curves.values["ratio_loss_median"]
    assert 0.4 < first < 0.95
    # Few units leave 0 at a marker and return; short sequences have more of them.
    np.testing.assert_allclose(others, first, rtol=0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("whole_work")
def test_a_suite_of_initial_values_runs_reports_and_resumes(tmp_path: Path) -> None:
    suite = helpers.write(tmp_path / "starts.toml", SECTION)
    arguments = ("run", suite, "-o", tmp_path / "run")
    code, shown, _ = helpers.run(*arguments, "--dry-run", cwd=tmp_path)
    assert code == 0
    assert re.search(
        r"gradients lstm numpy-reference adding-12 native-torch .*s1", shown
    )
    code, shown, printed = helpers.finish(
        helpers.start(*arguments, cwd=tmp_path, report=True)
    )
    assert code == 0, printed
    assert "horizon" in printed
    assert "lstm 8" in shown
    records = RunFolder.open(tmp_path / "run").records()
    assert {r.trial.measure for r in records} == {"gradients"}
    assert {r.outcome for r in records} == {"ok"}
    for record in records:
        direct = measure_gradients(Problem(REGISTRY, record.trial), None)
        whole = next(r for r in record.readings if r.x is None)
        assert whole.values == direct.readings[0].values
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Horizon in time steps at the initial values" in page
    assert (tmp_path / "run" / "figures" / "initial-values-1.svg").is_file()
    _, _, printed = helpers.run(*arguments, cwd=tmp_path)
    assert "horizon" not in printed  # everything was done before


# --- analysis, table, figure ---------------------------------------------------------


def commit(writer: Writer, found: Trial, rate: float, ends: int | None = None) -> None:
    """Commit R = exp(-rate lag), which underflows from the lag `ends` on."""
    lags = list(range(101))
    curve: list[float | None] = [math.exp(-rate * lag) for lag in lags]
    if ends is not None:
        curve[ends:] = [None] * len(curve[ends:])
    above = [lag for lag, v in zip(lags, curve, strict=True) if v and v > 1e-3]
    whole = {"horizon_loss": above[-1], "horizon_random": above[-1], "max_lag": 100}
    quantiles = ("median", "q10", "q90")
    curves = {f"ratio_loss_{q}": curve for q in quantiles}
    readings = [
        Reading("initial", whole),
        Reading("initial", curves, lags, "time steps"),
    ]
    writer.commit(found, readings=readings)


@pytest.fixture(name="run")
def invented_run(tmp_path: Path) -> RunFolder:
    """Return a run: gru has two equal schemes and a crash, rnn has an underflow."""
    writer = Writer.create(tmp_path / "run", {"suite": {"name": "starts"}})
    for seed, rate in enumerate((0.1, 0.2, 0.14)):
        for init in ("canonical", "zero-bias"):
            commit(writer, trial("gru", init, seed), rate)
        commit(writer, trial("gru", "chrono", seed), 0.01)
        commit(writer, trial("rnn", "native-torch", seed), 0.3, ends=9)
    crashed = trial("gru", "native-keras")
    writer.commit(crashed, outcome="crashed", reason="signal 11")
    # A trial that followed learning belongs to another figure.
    followed = replace(trial("gru", "canonical"), settings=GradientsSettings("x"))
    commit(writer, followed, 0.5)
    return writer.run


def test_horizons_are_medians_with_their_range_by_cell_and_scheme(
    run: RunFolder,
) -> None:
    gru, rnn = initial_rows(JudgedRun.read(run))
    assert (gru.cell, rnn.cell) == ("gru", "rnn")
    found = {h.init: (h.median, h.low, h.high, h.seeds) for h in gru.horizons}
    # ln 1000 / 0.1 = 69.08, / 0.14 = 49.3, / 0.2 = 34.5.
    assert found == {
        "canonical": (49, 34, 69, 3),
        "zero-bias": (49, 34, 69, 3),
        "chrono": (100, 100, 100, 3),
    }
    assert [(h.init, h.median) for h in rnn.horizons] == [("native-torch", 8)]


def test_the_table_shows_bounds_ranges_and_what_is_missing(run: RunFolder) -> None:
    table = initial_values_table(summarize(JudgedRun.read(run)))
    (block,) = table.blocks
    assert block.head == (
        "network", "canonical", "zero-bias", "chrono", "native-torch", "largest lag",
        "seeds",
    )  # fmt: skip
    assert [row.cells for row in block.rows] == [
        ("gru 8", "49 [34, 69]", "49 [34, 69]", "≥100", "–", "100", "3"),
        ("rnn 8", "–", "–", "–", "8", "100", "3"),
    ]


def test_curves_that_would_overlap_are_one_line_with_both_names(
    run: RunFolder,
) -> None:
    gru, rnn = initial_panels(JudgedRun.read(run))
    assert [s.inits for s in gru.series] == [("canonical", "zero-bias"), ("chrono",)]
    middle = gru.series[0].median
    np.testing.assert_allclose(middle, np.exp(-0.14 * np.arange(101)), rtol=1e-12)
    assert gru.failures == {("native-keras", ORACLE, "crashed"): 1}
    assert rnn.series[0].median[8] > 0
    assert rnn.series[0].median[9:] == (0.0,) * 92


def test_the_figure_shows_a_line_for_each_scheme_and_names_what_it_leaves_out(
    run: RunFolder,
) -> None:
    panels = initial_panels(JudgedRun.read(run))
    palette = Palette.of(["gru", "rnn"], [ORACLE])
    with drawing():
        drawn = draw_initial_values(panels, palette, 1)
        again = draw_initial_values(panels, palette, 1)
    assert drawn.svg == again.svg
    assert drawn.png == again.png
    # Two lines for gru, one for rnn with a triangle at its underflow.
    assert sorted(cell for cell, _ in drawn.marks.values()) == ["gru"] * 2 + ["rnn"] * 2
    for words in (
        "adding, length 12: gru",
        "same as canonical: zero-bias",
        "not ok: native-keras: 1 crashed",
        "native-torch",
        "10⁻³",
    ):
        assert words in drawn.svg
    assert "rnn native-torch: too small for a float at lag 100" in drawn.alt
    assert "gru canonical, zero-bias: 8·10⁻⁷ at lag 100" in drawn.alt
