"""The roof of a session: the best peak of its libraries, or of an earlier doctor."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.machine.peak import Peak, Rate
from harness.run.engine import peaks as peaks_here
from harness.run.engine.peaks import Peaks, keep, name_in_cache
from harness.trial import Conditions, Trial
from tests.helpers import REGISTRY

NUMPY = Trial("speed", "numpy-reference", "gru")
TORCH = Trial("speed", "torch-native", "gru")
TWO = Trial("speed", "numpy-reference", "gru", threads=2)
FOUND = {
    "numpy": Peak(Rate(100e9, 512), Rate(50e9, 2**28)),
    "torch": Peak(Rate(110e9, 512), Rate(40e9, 2**28)),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def peaks(asked: list[str] | None = None) -> Peaks:
    def ask(trial: Trial) -> Peak | None:
        name = REGISTRY.framework_of(trial.implementation).name
        (asked if asked is not None else []).append(name)
        return FOUND.get(name)

    return Peaks(REGISTRY, ask)


def test_each_rate_is_the_best_of_all_libraries_and_names_its_library() -> None:
    found = facts(peaks(), NUMPY, TORCH)
    assert found[Conditions.of(NUMPY)] == {
        "flop_per_s": 110e9,
        "flop_by": "torch",
        "flop_machine": "fit",
        "copy_bytes_per_s": 50e9,
        "copy_by": "numpy",
        "copy_machine": "fit",
    }


def test_a_library_is_measured_once_for_each_device_and_number_of_threads() -> None:
    asked: list[str] = []
    found = peaks(asked)
    facts(found, NUMPY, NUMPY, TWO)
    facts(found, NUMPY, TORCH)
    assert asked == ["numpy", "numpy", "torch"]


def facts(found: Peaks, *trials: Trial, machine: str = "fit") -> dict[Conditions, Any]:
    """Return the facts of the results of a session, by key."""
    best = found.best(trials, machine)
    return {key: peak.to_json() for key, peak in best.items()}


def of_jax(
    flop_per_s: float, copy_bytes_per_s: float, machine: str | None = None
) -> Peak:
    return Peak(Rate(flop_per_s, 512), Rate(copy_bytes_per_s, 2**28)).of_library(
        "jax",
        versions="jax 0.9.2",
        measured_at="2026-11-26 10:00:00",
        machine=machine,
    )


def test_a_peak_that_doctor_found_is_used_if_it_is_higher() -> None:
    rates = of_jax(120e9, 30e9)
    keep({Conditions.of(NUMPY): rates})
    found = facts(peaks(), NUMPY, TWO)
    assert found[Conditions.of(NUMPY)]["flop_per_s"] == 120e9
    assert found[Conditions.of(NUMPY)]["flop_by"] == "jax, doctor"
    assert found[Conditions.of(NUMPY)]["copy_by"] == "numpy"
    assert found[Conditions.of(TWO)]["flop_per_s"] == 100e9, "another number of threads"
    keep({Conditions.of(NUMPY): of_jax(90e9, 30e9)})
    assert facts(peaks(), NUMPY)[Conditions.of(NUMPY)]["flop_by"] == "numpy"


def test_a_rate_of_doctor_has_its_date_and_library_versions() -> None:
    keep({Conditions.of(NUMPY): of_jax(120e9, 30e9)})
    assert facts(peaks(), NUMPY)[Conditions.of(NUMPY)] == {
        "flop_per_s": 120e9,
        "flop_by": "jax, doctor",
        "flop_versions": "jax 0.9.2",
        "flop_measured_at": "2026-11-26 10:00:00",
        "copy_bytes_per_s": 50e9,
        "copy_by": "numpy",
        "copy_machine": "fit",
    }


def test_a_rate_has_the_fitness_of_the_machine_when_it_was_measured() -> None:
    keep({Conditions.of(NUMPY): of_jax(120e9, 30e9, "unfit")})
    found = peaks()
    assert (
        facts(found, NUMPY, machine="noisy")[Conditions.of(NUMPY)]["flop_machine"]
        == "unfit"
    )
    assert facts(found, NUMPY)[Conditions.of(NUMPY)]["copy_machine"] == "noisy"


def test_a_peak_that_doctor_found_on_another_processor_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep({Conditions.of(NUMPY): of_jax(900e9, 1e9)})
    monkeypatch.setattr(peaks_here, "processor", lambda: "another")
    assert facts(peaks(), NUMPY)[Conditions.of(NUMPY)]["flop_by"] == "numpy"


def test_a_broken_cache_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "rnn-harness" / "peaks.json"
    file.parent.mkdir()
    name = name_in_cache(Conditions.of(NUMPY))
    # The last one is of an old doctor, which stored neither date nor version.
    bad = [3, {"flop_per_s": 3}, None, {"flop_per_s": {"per_s": 9e99, "more": 1}}]
    bad += [{"flop_per_s": [900e9, "jax"], "copy_bytes_per_s": [1e9, "jax"]}]
    for text in ("{", "[1]", "", *(json.dumps({name: value}) for value in bad)):
        file.write_text(text)
        assert facts(peaks(), NUMPY)[Conditions.of(NUMPY)]["flop_by"] == "numpy"
    keep({Conditions.of(NUMPY): of_jax(900e9, 1e9)})
    assert facts(peaks(), NUMPY)[Conditions.of(NUMPY)]["flop_by"] == "jax, doctor"
