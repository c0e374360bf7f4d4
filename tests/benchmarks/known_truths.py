"""Is an identical copy found to be the same, and one that is 10 % slower, slower?

`python -m tests.benchmarks.known_truths [--sessions 20] [-o FILE.json]`

Each session times torch's own layer, a copy of it and one whose calls take 10 % longer,
all taking turns, as `rnn-harness run` does by default. The verdicts are those of
`compare` at its least effect of 5 %. A session takes about 10 s on a quiet machine and
50 s on a noisy one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.analysis.comparison.compare import EFFECT, Compared, compare
from harness.analysis.run import JudgedRun
from harness.intervals import proportion_interval
from harness.machine.facts import describe_environment
from harness.registry import Registry
from harness.run.execution import Execution
from harness.run.job import Options
from harness.store import RunFolder, TrialRecord, to_json, write_atomically
from harness.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests/fake_plugins/ten_per_cent.py"
RESULT = ROOT / "results/known-truths.json"

TRUTHS = {"copy": "same", "slower": "slower"}
"""What each is to be called."""

SUITE = """
name = "known-truths"
why = "One layer three times, at about 4 ms a call."

[[speed]]
cells = ["gru"]
implementations = ["original", "copy", "slower"]
phases = ["forward"]
shapes = [{ batch = 32, time_steps = 50, input_size = 32, hidden_size = 128 }]
"""


def main() -> None:
    """Run the sessions, print the observed rates, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.sessions < 1:
        parser.error("--sessions: give 1 or more")
    start_s = time.monotonic()
    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.sessions):
            sessions.append(_session(Path(folder) / str(number)))
            print(f"{number + 1}: {_line(sessions[-1])}", flush=True)
    found = _summary(sessions, time.monotonic() - start_s)
    for name, rate in found["rates"].items():
        print(
            f"{name} called {TRUTHS[name]} in {rate['right']} of {rate['sessions']} "
            f"sessions: {rate['share']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]; "
            f"all verdicts: {rate['verdicts']}"
        )
    print(f"{found['wall_time_s']:.0f} s on {found['machine']}, {found['fitness']}")
    write_atomically(arguments.output, to_json(found) + "\n")
    print(f"written to {arguments.output}")


def _session(folder: Path) -> dict[str, Any]:
    """Time one session; return the verdict on each, and how fit the machine was."""
    suite = folder.with_suffix(".toml")
    suite.write_text(SUITE, encoding="utf-8")
    registry = Registry.discover([PLUGIN])
    run = RunFolder.create(folder)
    Execution(
        load_suite(str(suite), registry), registry, run, "cpu", Options(certify=False)
    ).execute(Console(quiet=True))
    records = run.records()
    for record in records:
        if record.outcome != "ok" or not record.value("readback", "ok"):
            raise SystemExit(f"{record.trial.label}: {record.outcome}, {record.reason}")
    facts = _facts(records)
    original = JudgedRun([r for r in records if r.trial.implementation == "original"])
    for name in TRUTHS:
        (row,) = compare(original, _as_original(records, name)).rows
        facts[name] = _verdict(row)
    return facts


def _as_original(records: Sequence[TrialRecord], name: str) -> JudgedRun:
    """Return the trials of an implementation as if they had timed `original`."""
    return JudgedRun(
        [
            replace(r, trial=replace(r.trial, implementation="original"))
            for r in records
            if r.trial.implementation == name
        ]
    )


def _facts(records: Sequence[TrialRecord]) -> dict[str, Any]:
    result = records[0].result
    fitness = result.get("fitness") or {"verdict": "unknown"}
    original = next(r for r in records if r.trial.implementation == "original")
    return {
        "fitness": fitness["verdict"],
        "framework": result.get("framework"),
        "time_s": original.value("forward", "time_s"),
    }


def _verdict(row: Compared) -> dict[str, Any]:
    assert row.effect is not None
    interval = row.effect.interval
    return {
        "verdict": row.verdict,
        "ratio": round(row.effect.ratio, 4),
        "low": None if interval is None else round(interval.low, 4),
        "high": None if interval is None else round(interval.high, 4),
        "rounds": row.effect.rounds,
    }


def _line(session: dict[str, Any]) -> str:
    shown = [
        f"{name} {found['ratio']} [{found['low']}, {found['high']}] "
        f"{found['verdict']} ({found['rounds']} rounds)"
        for name in TRUTHS
        for found in [session[name]]
    ]
    call_ms = 1e3 * session["time_s"]
    return f"{', '.join(shown)}; {call_ms:.2f} ms, {session['fitness']} machine"


def _summary(sessions: Sequence[dict[str, Any]], wall_time_s: float) -> dict[str, Any]:
    environment, rates = describe_environment(["torch"]), {}
    for name, truth in TRUTHS.items():
        verdicts = Counter(session[name]["verdict"] for session in sessions)
        interval = proportion_interval(verdicts[truth], len(sessions))
        rates[name] = {
            "truth": truth,
            "right": verdicts[truth],
            "sessions": len(sessions),
            "share": verdicts[truth] / len(sessions),
            "low": interval.low,
            "high": interval.high,
            "verdicts": dict(verdicts),
        }
    return {
        "what": "a copy of an implementation and one that takes 10 % longer",
        "effect": EFFECT,
        "suite": SUITE.strip().splitlines(),
        "measured_at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        **{name: environment[name] for name in ("machine", "commit", "dirty")},
        "framework": sessions[0]["framework"],
        "fitness": dict(Counter(session["fitness"] for session in sessions)),
        "wall_time_s": round(wall_time_s, 1),
        "rates": rates,
        "sessions": list(sessions),
    }


if __name__ == "__main__":
    main()
