from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from harness.registry import Registry
from harness.run.job import (
    Begins,
    Checkpointed,
    Event,
    Job,
    Limits,
    News,
    Options,
    Start,
)
from harness.run.plan.plan import make_plan
from harness.store import RunFolder
from harness.suite import Suite
from harness.trial import Trial
from tests import helpers
from tests.faults.conftest import SLOWED, TINY, Call

if TYPE_CHECKING:
    from distributed import Client

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None,
        reason="no module 'distributed'",
    ),
]
RUN = ("run", "tiny.toml", "-o", "out", "--plugin", SLOWED)
DASK = (*RUN, "--executor", "dask")
# Under a memory limit, the highest rates of this machine are not measured.
NO_PEAKS = ("--memory-limit", "8G")
ROOT = helpers.HERE.parent


class Cluster:
    """A scheduler and workers, each a process that can be killed.

    Attributes:
        known: What the scheduler knows of each worker, by its address.
        unusable: Workers that no other test can use.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self._folder = folder
        self.scheduler = self._start("scheduler", "--port", 0, "--host", "127.0.0.1")
        helpers.wait_for(self.file.exists, "the scheduler")
        self.workers: list[subprocess.Popen[bytes]] = []
        self.unusable: list[subprocess.Popen[bytes]] = []
        self.known: dict[str, Any] = {}

    def have_workers(self, count: int) -> None:
        """Start or end workers until there are `count`."""
        end(*self.workers[count:])
        del self.workers[count:]
        self.add_workers(count - len(self.workers))

    def add_workers(self, count: int, path: Path = ROOT, resources: str = "") -> None:
        """Start workers, and wait until the scheduler knows all workers."""
        from distributed import Client

        more = ("--resources", resources) if resources else ()
        for _ in range(count):
            of_all = ("--nthreads", 1, "--no-nanny", "--memory-limit", 0)
            self.workers.append(self._start("worker", *of_all, *more, path=path))
            if path != ROOT or resources:
                self.unusable.append(self.workers[-1])
        with Client(scheduler_file=str(self.file)) as client:
            helpers.wait_for(lambda: self._known(client), "the workers to join")

    def _known(self, client: Client) -> bool:
        """Say whether the scheduler knows these workers and no others."""
        self.known = client.scheduler_info(n_workers=-1)["workers"]
        return len(self.known) == len(self.workers)

    def _start(
        self, kind: str, *arguments: object, path: Path = ROOT
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", f"distributed.cli.dask_{kind}"),
                *("--scheduler-file", str(self.file), "--no-dashboard"),
                *map(str, arguments),
            ],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": f"{path}:{os.environ['PYTHONPATH']}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def lone_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster for a test that would harm the others, or keep them waiting."""
    found = Cluster(tmp_path)
    yield found
    end(*found.workers, found.scheduler)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    end(*found.workers, found.scheduler)


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster of this module; the next test uses its workers again.

    The tests are in an order that starts few.
    """
    found = shared_cluster
    yield found
    end(*found.unusable)
    found.unusable.clear()
    found.workers = [w for w in found.workers if w.poll() is None]
    helpers.wait_for(lambda: not busy(found), "workers of the harness to end")


def busy(cluster: Cluster) -> list[subprocess.Popen[bytes]]:
    """Return the dask workers that have started a worker of the harness."""
    return [w for w in cluster.workers if helpers.workers_of(w.pid)]


def learns(folder: Path) -> bool:
    """Say whether a learning trial has reported updates and is not done."""
    for trial in (folder / "out" / "trials").glob("learning-*"):
        events = trial.glob("attempt-*/events.jsonl")
        if not (trial / "result.json").exists() and any(
            len(file.read_bytes().splitlines()) > 3 for file in events
        ):
            return True
    return False


def test_ctrl_c_ends_the_wait_for_a_first_worker(
    cluster: Cluster, fresh: Callable[[str], Path]
) -> None:
    cluster.have_workers(0)
    process = helpers.start(*DASK, "--scheduler", cluster.file, cwd=fresh("run"))
    connections = psutil.Process(process.pid).net_connections
    helpers.wait_for(lambda: connections("tcp"), "a connection to the scheduler")
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, _, err = helpers.finish(process)
    assert code == 130, err
    assert "has no worker after" not in err  # which is the end of the wait


def test_a_worker_with_different_code_is_reported_before_any_work(
    cluster: Cluster, fresh: Callable[[str], Path], tmp_path: Path, call: Call
) -> None:
    folder = fresh("run")
    cluster.have_workers(0)
    cluster.add_workers(1, _other_code(tmp_path / "other"))
    before = helpers.snapshot(folder / "out" / "trials")
    code, _, err = call(*DASK, "--scheduler", cluster.file, cwd=folder)
    assert code == 2, err
    assert "differs from this process: source of cell rnn is" in err
    assert "install the same there and start the worker again" in err
    assert helpers.snapshot(folder / "out" / "trials") == before


def test_modules_that_a_plugin_file_imports_are_sent_with_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.have_workers(1)
    suite = helpers.suite(helpers.speed("theirs"))
    helpers.write(tmp_path / "tiny.toml", suite)
    helpers.write(
        tmp_path / "theirs.py",
        "from harness import declare_implementation\n"
        "import kernels.names\n"
        "declare_implementation('theirs', framework='numpy', cells=['rnn'],"
        " factory='theirs:build')\n"
        "def build(spec, cell, device):\n"
        "    from implementations.numpy_reference.network import NumpyNetwork\n"
        "    network = NumpyNetwork(spec, cell, device)\n"
        "    network.kernel = lambda: kernels.names.NAME\n"
        "    return network\n",
    )
    (tmp_path / "kernels").mkdir()
    package = helpers.write(tmp_path / "kernels" / "__init__.py", "")
    # The worker keeps no file of an earlier run, with an __init__.py or without.
    for name, is_package in (("one", True), ("another", False), ("third", False)):
        if not is_package:
            package.unlink(missing_ok=True)
        helpers.write(tmp_path / "kernels" / "names.py", f"NAME = {name!r}\n")
        code, _, err = helpers.run(
            *("run", "tiny.toml", "-o", name, "--executor", "dask", "--no-certify"),
            *("--scheduler", cluster.file, "--plugin", "theirs.py", *NO_PEAKS),
            cwd=tmp_path,
        )
        assert code == 0, err
        records = RunFolder.open(tmp_path / name).records()
        assert {r.result["kernel"] for r in records} == {name}


def test_a_trial_on_a_gpu_needs_a_worker_that_has_one(
    cluster: Cluster, fresh: Callable[[str], Path], call: Call
) -> None:
    folder = fresh("run")
    cluster.have_workers(1)
    for device, message in (
        ("cuda", "no dask worker advertises a GPU; start each with one visible"),
        ("auto", "--device auto cannot tell what a cluster has; give cpu or cuda"),
    ):
        code, _, err = call(
            *("run", "tiny.toml", "-o", "gpu", "--executor", "dask", "--device"),
            *(device, "--scheduler", cluster.file, "--set"),
            'learning.0.implementations=["torch-native"]',
            cwd=folder,
        )
        assert code == 2, err
        assert message in err
        assert "Traceback" not in err


def test_an_interrupted_run_leaves_checkpoints_and_resumes(
    cluster: Cluster,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
    call: Call,
) -> None:
    folder = fresh("run")
    cluster.have_workers(1)
    process = helpers.start(*DASK, "--scheduler", cluster.file, cwd=folder)
    helpers.wait_for(lambda: learns(folder), "a trial to learn")
    process.send_signal(signal.SIGINT)
    code, _, err = helpers.finish(process)
    assert code == 130, err
    assert list((folder / "out" / "trials").glob("*/attempt-*/checkpoint.npz"))
    slow.unlink()
    code, _, err = call(*DASK, "--scheduler", cluster.file, cwd=folder)
    assert code == 0, err
    assert helpers.curves(folder / "out") == undisturbed
    records = RunFolder.open(folder / "out").records()
    assert any("resumed_from" in r.result for r in records)


def test_a_worker_with_different_code_that_joins_later_gets_no_trial(
    cluster: Cluster, fresh: Callable[[str], Path], tmp_path: Path, slow: Path
) -> None:
    folder = fresh("run")
    other = _other_code(tmp_path / "other")
    cluster.have_workers(1)
    more = ("-k", "learning", "--seeds", "0-5")
    process = helpers.start(*DASK, "--scheduler", cluster.file, *more, cwd=folder)
    helpers.wait_for(lambda: learns(folder), "a trial to learn")
    cluster.add_workers(1, other)
    slow.unlink()
    code, _, err = helpers.finish(process)
    assert code == 0, err
    assert "differs from this process: source of cell rnn is" in err
    assert "start the worker again; it got no trial" in err
    records = RunFolder.open(folder / "out").records()
    learned = [r for r in records if r.trial.measure == "learning"]
    assert len({r.result["dask_worker"] for r in learned}) == 1
    assert len(learned) == 6


def _other_code(folder: Path) -> Path:
    for package in ("harness", "implementations", "tasks"):
        shutil.copytree(ROOT / package, folder / package)
    cell = folder / "implementations" / "cells" / "rnn.py"
    cell.write_text(cell.read_text() + "\n# Another day's code.\n")
    return folder


@pytest.mark.long
def test_a_session_runs_on_the_worker_with_the_quiet_resource(
    cluster: Cluster, fresh: Callable[[str], Path], call: Call
) -> None:
    folder = fresh("run")
    cluster.have_workers(2)
    cluster.add_workers(1, resources="quiet=1")
    (quiet,) = [a for a, worker in cluster.known.items() if worker["resources"]]
    command = (*DASK, "--scheduler", cluster.file, "-k", "speed", "--force")
    for _ in range(2):  # by chance it would be one of three workers
        code, _, err = call(*command, *NO_PEAKS, cwd=folder)
        assert code == 0, err
        records = RunFolder.open(folder / "out").records()
        timed = [r for r in records if r.trial.measure == "speed"]
        assert {r.result["dask_worker"] for r in timed} == {quiet}


class LearningLog:
    """A sink that records how a learning trial began, and its curve."""

    def __init__(self) -> None:
        self.resumed: list[bool] = []
        self.updates: list[Any] = []
        self.checkpoints = 0

    def __call__(self, news: News) -> None:
        match news:
            case Begins():
                self.resumed.append(news.resumed)
            case Event():
                self.updates.append(news.reading.x)
            case Checkpointed():
                self.checkpoints += 1


def test_a_lost_trial_resumes_from_its_checkpoint_though_the_scheduler_restarts_it(
    cluster: Cluster, slow: Path
) -> None:
    from harness.run.engine.cluster import DaskEngine

    cluster.have_workers(3)
    registry = Registry.discover([SLOWED])
    # For many minutes while the file `slow` is there.
    text = TINY.replace("updates = 240", "updates = 30_000")
    suite = Suite.model_validate(tomllib.loads(text))
    plan = make_plan(suite, registry, "cpu", choices={})
    job = Job({"learns": plan.learning[0].candidates[0]})
    sink = LearningLog()
    engine = DaskEngine(
        registry, Options(limits=Limits(checkpoint_s=0.2), scheduler=str(cluster.file))
    )
    with ThreadPoolExecutor() as pool:
        answers = pool.submit(engine.run, job, sink)
        for lost in (1, 2):
            seen = sink.checkpoints
            helpers.wait_for(lambda n=seen: sink.checkpoints > n, "a checkpoint")
            (victim,) = busy(cluster)
            end(victim)
            began = lost + 1
            helpers.wait_for(lambda n=began: len(sink.resumed) == n, "another worker")
        engine.stop(now=False)
        (answer,) = answers.result(timeout=helpers.PATIENCE_S).values()
    engine.close()
    assert answer.outcome == "stopped"
    assert sink.resumed == [False, True, True]
    assert not any(helpers.workers_of(w.pid) for w in cluster.workers)


def test_a_cluster_gives_the_curves_of_this_machine_though_a_worker_is_killed(
    cluster: Cluster,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
) -> None:
    folder = fresh("run")
    cluster.have_workers(2)
    process = helpers.start(
        *(*DASK, "--scheduler", cluster.file, "--checkpoint-every", 0.2), cwd=folder
    )
    helpers.wait_for(lambda: learns(folder), "a trial to learn")
    victim, *_ = busy(cluster)
    theirs = helpers.workers_of(victim.pid)
    end(victim)
    slow.unlink()
    code, _, err = helpers.finish(process)
    assert code == 0, err
    helpers.wait_for(lambda: not any(map(helpers.alive, theirs)), "its workers to end")
    assert helpers.curves(folder / "out") == undisturbed
    run = RunFolder.open(folder / "out")
    assert {r.outcome for r in run.records()} == {"ok"}
    assert all(r.result["host"] and r.result["processor"] for r in run.records())


@pytest.mark.long
def test_a_hanging_worker_does_not_delay_the_others(
    lone_cluster: Cluster, fresh: Callable[[str], Path], slow: Path
) -> None:
    folder = fresh("run")
    lone_cluster.have_workers(2)
    more = ("--scheduler", lone_cluster.file, "--seeds", 0)
    process = helpers.start(*DASK, *more, cwd=folder)
    helpers.wait_for(lambda: learns(folder), "a trial to learn")
    (busy_one,) = busy(lone_cluster)
    (idle,) = [w for w in lone_cluster.workers if w is not busy_one]
    idle.send_signal(signal.SIGSTOP)
    time.sleep(3)  # a request to it now waits for ever
    (curve,) = folder.glob("out/trials/learning-*/attempt-*/events.jsonl")
    before = curve.stat().st_size
    helpers.wait_for(
        lambda: curve.stat().st_size > before, "an event of the other trial"
    )
    process.send_signal(signal.SIGINT)
    code, _, err = helpers.finish(process)
    assert code == 130, err
    assert "every finished trial is kept in out" in err
    assert list(folder.glob("out/trials/learning-*/attempt-*/checkpoint.npz"))


@pytest.mark.long
def test_a_lost_scheduler_costs_only_the_trials_in_flight(
    lone_cluster: Cluster,
    fresh: Callable[[str], Path],
    undisturbed: dict[str, bytes],
    slow: Path,
    call: Call,
) -> None:
    folder = fresh("run")
    slow.write_text("1")  # the first trial ends
    lone_cluster.add_workers(1)
    process = helpers.start(*DASK, "--scheduler", lone_cluster.file, cwd=folder)
    done = "trials/learning-*/result.json"
    helpers.wait_for(
        lambda: list((folder / "out").glob(done)) and learns(folder),
        "the second trial to learn",
    )
    before = helpers.snapshot(folder / "out" / "trials")
    end(lone_cluster.scheduler)
    code, _, err = helpers.finish(process)
    assert code == 2, err
    assert "Traceback" not in err
    assert "the dask scheduler or all its workers are lost; every finished" in err
    run = RunFolder.open(folder / "out")
    assert run.damaged() == {}
    finished = [record.id for record in run.records()]
    assert len(finished) == 3
    after = helpers.snapshot(folder / "out" / "trials")
    assert {f: h for f, h in before.items() if f.split("/")[0] in finished}.items() <= (
        after.items()
    )
    slow.unlink()
    code, _, err = call(*RUN, cwd=folder)
    assert code == 0, err
    assert helpers.curves(folder / "out") == undisturbed


def test_a_local_cluster_is_started_when_none_is_named(
    fresh: Callable[[str], Path], undisturbed: dict[str, bytes]
) -> None:
    folder = fresh("run")
    code, _, err = helpers.run(*DASK, "-j", 2, cwd=folder)
    assert code == 0, err
    assert helpers.curves(folder / "out") == undisturbed


def test_ctrl_c_at_a_terminal_stops_a_local_cluster_gently(
    fresh: Callable[[str], Path], slow: Path
) -> None:
    folder = fresh("run")
    command = (*DASK, "-j", 1)
    code = (
        "import os, runpy, sys; os.setsid();"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, helpers.HERE / "bare_cli.py", *map(str, command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    helpers.wait_for(lambda: learns(folder), "a trial to learn")
    os.killpg(process.pid, signal.SIGINT)
    found, _, err = helpers.finish(process)
    assert found == 130, err
    assert "every finished trial is kept in out" in err
    assert "Traceback" not in err
    assert RunFolder.open(folder / "out").damaged() == {}


def test_a_trial_whose_answer_was_lost_is_run_again_from_the_newest_checkpoint() -> (
    None
):
    from harness.run.engine.cluster import _SentJob

    trial = Trial("learning", "numpy-reference", "rnn")
    sent = _SentJob(Job({"learns": trial}), sink := LearningLog())
    assert sent.next_attempt().start is None
    news = [Checkpointed("learns", Start({"updates": 3}, {}))]
    sent.news(sent.name, "one", 0, news)
    assert not sent.is_from("another")  # restarted by dask itself, without a checkpoint
    assert sent.is_from("one")
    again = sent.next_attempt().start
    assert again is not None
    assert again.state == {"updates": 3}
    assert sent.is_from("a third")  # this attempt has reported nothing yet
    assert sink.checkpoints == 1


def test_each_gpu_is_given_to_one_worker_of_a_local_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.run.engine import cluster as distributed
    from harness.run.engine import own_cluster

    monkeypatch.setattr(own_cluster, "gpu_names", lambda: ["NVIDIA A", "NVIDIA B"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5fa")
    engine = distributed.DaskEngine(Registry.discover(), Options(jobs=3))
    try:
        workers = engine._workers()
        seen = engine._client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        trial = Trial("speed", "torch-native", "gru", device="cuda:0")
        timed = engine._where(Job({"timed": trial}, session=True))
    finally:
        engine.close()
    with_gpu = {a for a, w in workers.items() if w["resources"] == {"GPU": 1}}
    assert len(workers) == 3
    assert sorted(seen[a] for a in with_gpu) == ["2", "GPU-5fa"]
    assert timed["resources"] == {"GPU": 1}
    assert set(timed["workers"]) < with_gpu  # a worker on this host


def test_a_missing_scheduler_is_reported(
    fresh: Callable[[str], Path], call: Call
) -> None:
    folder = fresh("run")
    helpers.write(folder / "empty.json", "{}")
    helpers.write(folder / "list.json", "[1]")
    helpers.write(folder / "number.json", '{"address": 5}')
    (folder / "bytes.json").write_bytes(b"\xff\xfe")
    for scheduler, message in (
        ("tcp://127.0.0.1:1", "no dask scheduler answers at tcp://127.0.0.1:1"),
        ("nowhere.json", "--scheduler nowhere.json: give an address"),
        ("x" * 5000, "--scheduler xxxxx"),
        ("no\nfile", "give an address"),
        ("tls://127.0.0.1:1", "keys that dask's configuration names"),
        ("odd://127.0.0.1:1", "no dask scheduler answers at odd://127.0.0.1:1"),
        ("tcp://127.0.0.1:999999", "no dask scheduler answers at tcp://127.0.0.1:999"),
        ("tcp://[", "no dask scheduler answers at tcp://["),
        ("empty.json", "no dask scheduler answers at empty.json"),
        ("list.json", "no dask scheduler answers at list.json"),
        ("number.json", "no dask scheduler answers at number.json"),
        ("bytes.json", "no dask scheduler answers at bytes.json"),
    ):
        code, _, err = call(*DASK, "--scheduler", scheduler, cwd=folder)
        assert code == 2, err
        assert message in err
        assert "Traceback" not in err
    code, _, err = call("run", "tiny.toml", "--scheduler", "x", cwd=folder)
    assert code == 2, err
    assert "add --executor dask" in err
