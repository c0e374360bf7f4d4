import uuid
from pathlib import Path

import pytest

from harness.files.log import HEAD_BYTES, TAIL_BYTES
from harness.registry import Registry
from harness.store import RunFolder, TrialRecord
from tests import helpers

pytestmark = pytest.mark.slow

MARK = "RNN_HARNESS_TEST"
FILE = helpers.PLUGINS / "misbehaves.py"
TIMEOUT_S, LIMIT_MB = 5, 500
HANGS = "(sleeps-in-c or forks-and-hangs or escapes-and-sleeps)"

SUITE = helpers.suite(
    helpers.speed(
        *("exits-quietly", "segfaults-in-c", "allocates-without-end", "sleeps-in-c"),
        *("forks-and-hangs", "leaves-its-session-and-exits", "prints-a-gigabyte"),
        *("leaves-a-zombie", "escapes-and-exits", "forks-and-goes-on"),
        *("writes-into-every-pipe", "closes-every-file", "raises-a-long-text"),
        *("answers-what-nobody-asked", "returns-objects", "numpy-reference"),
    )
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialRecord]:
    """Return the record of each certificate; making them leaves no process.

    Those that hang get little time, and the others as much as a busy machine takes.
    """
    folder = tmp_path_factory.mktemp("misbehaviour")
    helpers.write(folder / "suite.toml", SUITE)
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        for which, timeout_s in (
            (f"not {HANGS}", helpers.PATIENCE_S),
            (HANGS, TIMEOUT_S),
        ):
            code, out, err = helpers.run(
                *("run", "suite.toml", "-o", "out", "-k", f"parity and {which}"),
                *("--timeout", timeout_s, "--memory-limit", f"{LIMIT_MB}MB"),
                *("--plugin", FILE),
                cwd=folder,
            )
            assert code == 4, out + err
            assert "Traceback" not in err
    helpers.wait_for(lambda: not helpers.marked(mark), "every process to be gone")
    run = RunFolder.open(folder / "out")
    return {r.trial.implementation: r for r in run.records()}


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("exits-quietly", "crashed", "the worker of exits-quietly exited with 0"),
        ("segfaults-in-c", "crashed", "SIGSEGV in segfaults-in-c"),
        (
            "allocates-without-end",
            "out_of_memory",
            "stopped at the memory limit of 477 MiB",
        ),
        ("sleeps-in-c", "timeout", f"stopped at the time limit of {TIMEOUT_S} s"),
        ("forks-and-hangs", "timeout", f"stopped at the time limit of {TIMEOUT_S} s"),
        (
            "escapes-and-sleeps",
            "timeout",
            f"stopped at the time limit of {TIMEOUT_S} s",
        ),
        (
            "leaves-its-session-and-exits",
            "crashed",
            "the worker of leaves-its-session-and-exits exited with 0",
        ),
        ("prints-a-gigabyte", "ok", None),
        ("leaves-a-zombie", "ok", None),
        (
            "escapes-and-exits",
            "crashed",
            "the worker of escapes-and-exits exited with 0",
        ),
        ("forks-and-goes-on", "ok", None),
        (
            "writes-into-every-pipe",
            "crashed",
            "writes-into-every-pipe sent no message but b'loud\\n' (JSONDecodeError)",
        ),
        ("answers-what-nobody-asked", "ok", None),
        (
            "closes-every-file",
            "crashed",
            "the worker of closes-every-file exited with 1",
        ),
        (
            "returns-objects",
            "failed",
            "`forward` returned outputs of dtype object; expected floating-point "
            "numbers",
        ),
        ("numpy-reference", "ok", None),
    ],
)
def test_each_misbehaviour_has_its_outcome_and_the_reference_still_ends_ok(
    ended: dict[str, TrialRecord], name: str, outcome: str, reason: str | None
) -> None:
    record = ended[name]
    assert (record.outcome, record.reason) == (outcome, reason)
    if outcome == "ok":
        assert record.value("certificate", "certified")


def test_a_killed_command_leaves_nothing_that_a_plugin_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    suite = helpers.suite(helpers.speed("escapes-and-sleeps"))
    helpers.write(tmp_path / "suite.toml", suite)
    command = ("run", "suite.toml", "-o", "out", "-k", "parity and escapes-and-sleeps")
    running = helpers.start(*command, "--plugin", FILE, cwd=tmp_path)

    def escaped() -> bool:
        return any("escaped" in found for found in helpers.marked(mark))

    helpers.wait_for(escaped, "the escaped process")
    running.kill()
    running.communicate()
    helpers.wait_for(lambda: not helpers.marked(mark), "every process to be gone")


def test_reading_a_file_leaves_nothing_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    text = FILE.read_text(encoding="utf-8") + "\n_escape()\n"
    registry = Registry.discover([helpers.write(tmp_path / "misbehaves.py", text)])
    assert "exits-quietly" in registry.implementations
    helpers.wait_for(lambda: not helpers.marked(mark), "every process to be gone")


def test_a_reason_has_a_bound(ended: dict[str, TrialRecord]) -> None:
    record = ended["raises-a-long-text"]
    assert record.outcome == "failed"
    assert record.reason is not None
    assert record.reason.startswith("ValueError: long long")
    assert "(misbehaves.py:" in record.reason
    assert len(record.reason) <= 2000


def test_a_gigabyte_of_output_is_cut_to_its_head_and_tail(
    ended: dict[str, TrialRecord],
) -> None:
    assert ended["prints-a-gigabyte"].result["disk_bytes"] < 1.1 * (
        HEAD_BYTES + TAIL_BYTES
    )
