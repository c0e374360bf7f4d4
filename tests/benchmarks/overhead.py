"""Show the time of a run that was not spent on computing its trials.

`rnn-harness run quick -j 1 -o OUT && python -m tests.benchmarks.overhead OUT`
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from harness.store import RunFolder


def main() -> None:
    """Print computing time, the rest, and how many workers each framework had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="of one command with -j 1")
    run = RunFolder.open(parser.parse_args().run)
    wall_time_s = float(run.info()["wall_time_s"])
    compute_time_s = 0.0
    workers: dict[str, set[int]] = defaultdict(set)
    for record in run.records():
        compute_time_s += record.result.get("compute_time_s") or 0.0
        if "worker" in record.result:
            workers[record.result["framework"]].add(record.result["worker"])
    overhead = wall_time_s / compute_time_s - 1
    print(
        f"{wall_time_s:.1f} s, of which trials computed {compute_time_s:.1f} s: "
        f"overhead {100 * overhead:.1f} %"
    )
    for framework, found in sorted(workers.items()):
        print(f"{framework}: {len(found)} workers")


if __name__ == "__main__":
    main()
