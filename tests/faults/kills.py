"""Kill drivers, workers and children of workers at random; nothing may be lost.

`python -m tests.faults.kills --kills 1000` does what the test does, for longer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from harness.store import RunFolder, checkpoint
from tests import helpers

# Small trials of every measure, to be killed; learning lasts for some checkpoints.
SUITE = helpers.suite(
    helpers.learning(
        implementations=["with-a-child"],
        updates=600,
        evaluate_every=120,
        seeds=[*range(4)],
        gradients=True,
    ),
    helpers.speed("with-a-child", "numpy-reference"),
)

COMMAND = (
    *("run", "suite.toml", "-o", "out", "-j", 2, "--plugin"),
    *(helpers.PLUGINS / "with_a_child.py", "--retry-failed"),
    *("--checkpoint-every", 0.1),
)
AFTER_A_CHECKPOINT = "driver after a checkpoint"
VICTIMS = ("driver", AFTER_A_CHECKPOINT, "worker", "child of a worker")


@dataclass
class Campaign:
    """Rounds of one suite, each run to its end through kills.

    Attributes:
        kills: Number of kills of each victim.
        rounds: Runs that reached their end.
        resumed: Learning trials that resumed from a checkpoint.
        problems: Results that were lost, repeated or changed; empty if none.
    """

    folder: Path
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    resumed: int = 0
    problems: list[str] = field(default_factory=list)
    _next_victim: str = VICTIMS[0]
    _expected: dict[str, str] = field(default_factory=dict)

    def undisturbed(self) -> dict[str, str]:
        """Run the suite without kills; return a hash of the result of each trial."""
        folder = self._new_folder("undisturbed")
        code, _, err = helpers.run(*COMMAND, cwd=folder)
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}: {err}")
        return found(folder / "out")

    def run(self, kills: int) -> None:
        """Continue until so many were killed and the round has ended."""
        expected = self._expected = self._expected or self.undisturbed()
        while self.kills.total() < kills:
            folder = self._new_folder(f"round-{self.rounds}")
            while self._disturbed(folder, kills):
                pass
            ended = found(folder / "out")
            for name in sorted({*expected, *ended}):
                if expected.get(name) != ended.get(name):
                    self.problems.append(f"{folder.name}: {name} differs")
            self.resumed += sum(
                "resumed_from" in r.result
                for r in RunFolder.open(folder / "out").records()
            )
            self.rounds += 1

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        # Without this the certificates of the round before would be reused.
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        helpers.write(folder / "suite.toml", SUITE)
        return folder

    def _disturbed(self, folder: Path, kills: int) -> bool:
        """Run the command once, with kills; return whether it must be resumed."""
        before = finished(folder / "out")
        process = helpers.start(*COMMAND, cwd=folder)
        try:
            while self.kills.total() < kills:
                try:
                    process.wait(self.random.uniform(0.1, 1.5))
                    break
                except subprocess.TimeoutExpired:
                    self._kill(process.pid, folder / "out")
        finally:
            _, err = process.communicate(timeout=helpers.PATIENCE_S)
        if "Traceback" in err:
            self.problems.append(f"{folder.name}: {err}")
        after = finished(folder / "out")
        for name, content in before.items():
            if after.get(name) != content:
                self.problems.append(f"{folder.name}: {name} was lost or repeated")
        if process.returncode not in (0, 4, 5, -signal.SIGKILL):
            self.problems.append(
                f"{folder.name}: exit code {process.returncode}: {err}"
            )
            return False
        return process.returncode != 0

    def _kill(self, driver: int, out: Path) -> None:
        # Wait for the victim if it does not exist yet. With a new draw at each try,
        # nearly all kills on a slow machine would hit the longest-lived processes.
        victim = self._next_victim
        workers = helpers.workers_of(driver)
        learning = any(out.glob(f"trials/*/attempt-*/{checkpoint.NAME}"))
        processes = {
            "driver": [driver],
            AFTER_A_CHECKPOINT: [driver] if learning else [],
            "worker": workers,
            "child of a worker": [c for w in workers for c in _children(w)],
        }[victim]
        if processes:
            try:
                os.kill(self.random.choice(processes), signal.SIGKILL)
            except ProcessLookupError:
                return
            self.kills[victim] += 1
            least = min(self.kills[name] for name in VICTIMS)
            rare = [name for name in VICTIMS if self.kills[name] == least]
            # The last of each four, so that after the last of all a trial goes on from
            # its checkpoint and nothing disturbs it.
            others = [name for name in rare if name != AFTER_A_CHECKPOINT]
            self._next_victim = self.random.choice(others or rare)


def _children(process: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(process).children()]
    except psutil.Error:
        return []


def finished(out: Path) -> dict[str, tuple[bytes, int]]:
    """Return result and number of attempts of every trial that ended ok.

    Trials of a speed session are left out: they are compared with each other, and so
    are measured again together.
    """
    if not (out / "run.json").exists():
        return {}
    run = RunFolder.open(out)
    if run.damaged():
        raise RuntimeError(f"damaged: {run.damaged()}")
    return {
        r.trial.label: (
            (run.trials / r.id / "result.json").read_bytes(),
            len(list((run.trials / r.id).glob("attempt-*"))),
        )
        for r in run.records()
        if r.outcome == "ok" and r.trial.measure != "speed"
    }


def found(out: Path) -> dict[str, str]:
    """Return a hash of each result that is repeatable; of a timing, that it exists."""
    run = RunFolder.open(out)
    values = {}
    for record in run.records():
        digest = hashlib.sha256(record.outcome.encode())
        if record.trial.measure != "speed":
            for reading in record.readings:
                digest.update(repr(reading.to_json()).encode())
            for name, array in sorted(run.arrays(record.id).items()):
                digest.update(name.encode() + array.tobytes())
        values[record.trial.label] = digest.hexdigest()
    return values


def main() -> None:
    """Print the kills and the lost results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), random.Random(asked.seed))
        campaign.run(asked.kills)
    counts = ", ".join(f"{n} of a {v}" for v, n in sorted(campaign.kills.items()))
    print(
        f"{campaign.kills.total()} kills ({counts}) in {campaign.rounds} rounds, "
        f"{time.monotonic() - start:.0f} s; {campaign.resumed} learning trials went "
        f"on from a checkpoint"
    )
    for problem in campaign.problems:
        print(f"LOST: {problem}")
    if campaign.problems:
        raise SystemExit(1)
    print("lost: nothing; repeated: nothing")


if __name__ == "__main__":
    main()
