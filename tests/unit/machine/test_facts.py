import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MisuseError
from harness.machine import devices, gpu, pinning
from harness.machine.devices import resolve_device
from harness.machine.facts import describe_environment
from harness.trial import Trial


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_names", list)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA A", "NVIDIA B"])


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert resolve_device("cpu") == resolve_device("auto") == "cpu"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_is_refused_without_a_gpu_and_what_works_is_named(asked: str) -> None:
    with pytest.raises(MisuseError) as raised:
        resolve_device(asked)
    assert str(raised.value) == (
        f"no device '{asked}' here: the NVIDIA driver shows no GPU; use --device cpu "
        "or --device auto"
    )


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("asked", "device"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_gpu_is_named_with_its_number(asked: str, device: str) -> None:
    assert resolve_device(asked) == device


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_beyond_the_last_is_refused_and_the_gpus_are_listed() -> None:
    with pytest.raises(MisuseError, match=r"'cuda:2'.*cuda:0 \(NVIDIA A\), cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("asked", ["tpu", "", "CUDA", "cuda:", "cuda:-1", "cuda:x"])
def test_an_unknown_device_is_refused_and_the_allowed_ones_are_listed(
    asked: str,
) -> None:
    with pytest.raises(MisuseError) as raised:
        resolve_device(asked)
    assert f"unknown device '{asked}'" in str(raised.value)
    assert "auto, cpu, cuda, cuda:N" in str(raised.value)


def test_the_environment_is_described_by_machine_commit_and_library_versions() -> None:
    facts = describe_environment(["numpy", "no-such-distribution"])
    assert set(facts["libraries"]) == {"numpy"}
    assert facts["machine"].startswith(f"{facts['cores']} cores ")
    assert facts["memory_bytes"] > 0
    assert isinstance(facts["dirty"], bool)
    checkout = Path(__file__).parents[3]
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        head = subprocess.check_output(command, text=True)
        assert head.startswith(facts["commit"])


def test_a_worker_has_its_threads_pinned() -> None:
    pinned = pinning.pinned_variables(3)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert pinned[name] == "3"


@pytest.mark.parametrize(
    ("visible", "device", "shown"),
    [
        (None, "cpu", ""),
        ("0,1", "cpu", ""),
        (None, "cuda:1", "1"),
        ("3, GPU-5fa", "cuda:0", "3"),
        ("3, GPU-5fa", "cuda:1", "GPU-5fa"),
        ("3", "cuda:1", ""),
    ],
)
def test_a_worker_sees_only_its_own_device(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, shown: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pinned = pinning.worker_environment(1, device)
    assert pinned["CUDA_VISIBLE_DEVICES"] == shown
    assert (pinned.get("JAX_PLATFORMS") == "cpu") == (device == "cpu")


@pytest.mark.parametrize(
    ("precision", "override"), [("highest", "0"), ("tf32", None), ("bf16", None)]
)
def test_tf32_is_switched_off_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, precision: str, override: str | None
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    pinned = pinning.worker_environment(1, "cuda:0", precision)
    assert pinned.get("NVIDIA_TF32_OVERRIDE") == override


@pytest.mark.parametrize(
    ("visible", "asked"),
    [
        ("1", ("index", 1)),
        ("GPU-5fa,GPU-6fa", ("uuid", "GPU-5fa")),
        (None, ("index", 0)),
    ],
)
def test_a_result_names_the_gpu_that_its_worker_saw(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, asked: tuple[str, object]
) -> None:
    import pynvml

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    for kind, name in (("index", "Index"), ("uuid", "UUID")):
        monkeypatch.setattr(
            pynvml, f"nvmlDeviceGetHandleBy{name}", lambda what, kind=kind: (kind, what)
        )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"name of {handle}")
    assert gpu.gpu_name() == f"name of {asked}"


def test_a_worker_runs_its_trial_on_the_one_device_that_it_sees() -> None:
    from harness.messages.pipe import Message
    from harness.run.worker.judge import _trial

    for device, seen in (("cpu", "cpu"), ("cuda:0", "cuda:0"), ("cuda:3", "cuda:0")):
        trial = Trial("parity", "torch-native", "gru", device=device)
        assert _trial(Message({"trial": trial.to_json()})) == replace(
            trial, device=seen
        )
