"""Run jobs on the workers of a dask cluster.

A dask worker starts the same worker processes as this machine would. At most one job
is pending for each slot, because dask blames every job that is assigned to a worker
for its death. The news of a job is fetched from its worker every second; the answer
brings all of it again.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MisuseError, shortened
from harness.registry import Registry
from harness.run.engine import cluster_worker as remote
from harness.run.engine.own_cluster import start_cluster
from harness.run.job import (
    Answer,
    Checkpointed,
    Job,
    LostError,
    News,
    Options,
    Sink,
    StoppedError,
)

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

NEWS_S = 1.0
"""Time between two requests for news."""

MOST_LOSSES = 5
"""After the loss of so many workers, the job itself is taken for the cause."""

LOST_S = 60.0
"""How long a cluster may be without workers before the run gives up."""

CONNECT_S = 10.0

ANSWER_S = 5.0
"""How long a worker may take to answer a short call."""


class _SentJob:
    """A job that was sent to the cluster, with its sink and its newest checkpoint."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self._job, self._sink = job, sink
        self._start = job.start
        self._lock = threading.RLock()  # a signal handler may call `stop` meanwhile
        self.name = ""
        self.heard = ("", 0)
        self.restarted = False

    def next_attempt(self) -> Job:
        """Return the job under a new name; it continues from its newest checkpoint."""
        with self._lock:
            self.name, self.heard, self.restarted = uuid.uuid4().hex, ("", 0), False
            return replace(self._job, start=self._start)

    def news(
        self, name: str, execution: str, first: int, news: Sequence[News | None]
    ) -> None:
        """Pass on the new part of an execution's news, which are numbered from `first`.

        If a worker is lost, dask may start the job again by itself from an outdated
        checkpoint. The news then comes from another execution: the job was restarted.
        """
        with self._lock:
            if name == self.name:
                self.restarted |= not self.is_from(execution)
                if not self.restarted:
                    self._pass_on(execution, first, news)

    def _pass_on(self, execution: str, first: int, news: Sequence[News | None]) -> None:
        known, count = self.heard
        for each in news[(count if execution == known else 0) - first :]:
            if isinstance(each, Checkpointed):
                self._start = each.start
            if each is not None:
                self._sink(each)
        self.heard = (execution, first + len(news))

    def is_from(self, execution: str) -> bool:
        """Say whether the news so far came from this execution, or there was none."""
        with self._lock:
            return self.heard[0] in ("", execution)

    def finish(self, found: remote.Found) -> Mapping[str, Answer]:
        """Pass on the rest of the news; drop what a lost worker may still send."""
        with self._lock:
            self._pass_on(found.execution, 0, found.news)
            self.name = ""
        return found.answers


class DaskEngine:
    """Runs jobs on the workers of a dask cluster.

    Args:
        registry: Its plugin files are sent to the workers.
        options: Their `scheduler` is `tcp://host:port`, a scheduler file, or None to
            start a cluster here with a worker for each of `jobs`.
        is_stopped: Says whether the run was stopped while it waits for a worker.

    Raises:
        StoppedError: If the run was stopped.
        MisuseError: If there is no such cluster, or one of its workers has other plugin
            code or library versions than this process.
    """

    def __init__(
        self,
        registry: Registry,
        options: Options,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._package = remote.Package.of(registry)
        self._limits = options.limits
        self._run = uuid.uuid4().hex
        self._sent: list[_SentJob] = []
        self._refused: set[str] = set()
        self.notes: list[str] = []
        self._lock = threading.RLock()  # a signal handler may call `stop` meanwhile
        self._stopping: str | None = None
        self._closed = threading.Event()
        self._seen_at = time.monotonic()
        self._client, self._cluster = _connect(options.scheduler, options.jobs)
        try:
            self._check_workers(is_stopped)
        except BaseException:
            self._close_client()
            raise
        threading.Thread(target=self._listen, daemon=True).start()

    # --- the cluster -----------------------------------------------------------------

    def _workers(self) -> dict[str, Any]:
        # Without a scheduler this is empty.
        found: dict[str, Any] = self._client.scheduler_info(n_workers=-1)
        workers = found.get("workers", {}).items()
        return {a: worker for a, worker in workers if a not in self._refused}

    def _check_workers(self, is_stopped: Callable[[], bool]) -> None:
        """Compare every worker with this process, before any work."""
        end = time.monotonic() + LOST_S
        while not self._workers():
            if is_stopped():
                raise StoppedError
            if time.monotonic() > end:
                raise MisuseError(
                    f"the dask cluster has no worker after {LOST_S:.0f} s; start one "
                    "with `dask worker ADDRESS-OF-ITS-SCHEDULER`"
                )
            time.sleep(0.2)
        begin = time.monotonic()
        found = self._ask(remote.describe, self._package, within_s=LOST_S)
        if time.monotonic() - begin >= LOST_S:
            silent = ", ".join(self._workers().keys() - found.keys())
            raise MisuseError(
                f"dask worker {silent} does not answer within {LOST_S:.0f} s; end that "
                "worker, or the process that keeps it busy"
            )
        # A worker that has ended meanwhile is not in `found`; a worker that joins
        # later is compared when it gets its first job.
        for address, there in found.items():
            if isinstance(there, Exception):
                raise MisuseError(
                    f"dask worker {address} cannot run trials "
                    f"({type(there).__name__}: {there}); install the same rnn-harness "
                    "and frameworks there"
                )
            differing = remote.difference(self._package.facts, there)
            if differing is not None:
                raise MisuseError(str(remote.DifferentWorkerError(address, differing)))

    @property
    def slots(self) -> int:
        """Threads of all workers: jobs that may run side by side."""
        return max(1, sum(int(w["nthreads"]) for w in self._workers().values()))

    @property
    def session_slots(self) -> int:
        """Hosts on which a session may run alone."""
        return max(1, len(self._quiet_workers(self._workers())))

    def _quiet_workers(self, workers: Mapping[str, Any]) -> list[str]:
        """Return one worker of each host; only workers with `quiet` if any has it."""
        quiet = {a: w for a, w in workers.items() if w["resources"].get("quiet")}
        hosts: dict[str, str] = {}
        for address, worker in (quiet or workers).items():
            hosts.setdefault(str(worker["host"]), address)
        return sorted(hosts.values())

    def _where(self, job: Job) -> dict[str, Any]:
        """Return the arguments of `submit` that choose a worker for a job."""
        workers = self._workers()
        where: dict[str, Any] = {}
        if self._refused:
            where = {"workers": list(workers), "allow_other_workers": False}
        resources = {}
        if any(trial.device != "cpu" for trial in job.trials.values()):
            resources["GPU"] = 1
            workers = {a: w for a, w in workers.items() if w["resources"].get("GPU")}
            if not workers:
                raise MisuseError(
                    "no dask worker advertises a GPU; start each with one visible "
                    "device and --resources 'GPU=1'"
                )
        if job.session:
            names = self._quiet_workers(workers)
            where = {"workers": names, "allow_other_workers": False}
            if any(workers[name]["resources"].get("quiet") for name in names):
                resources["quiet"] = 1
        return {**where, "resources": resources or None}

    # --- jobs ------------------------------------------------------------------------

    def run(self, job: Job, sink: Sink) -> Mapping[str, Answer]:
        """Run a job on some worker, and on another one if that worker is lost.

        Raises:
            StoppedError: If the run is stopped meanwhile.
            LostError: If the cluster is lost.
        """
        sent = _SentJob(job, sink)
        with self._lock:
            if self._stopping:
                raise StoppedError
            self._sent.append(sent)
        try:
            losses = 0
            while losses < MOST_LOSSES:
                try:
                    found = self._attempt(sent)
                except remote.DifferentWorkerError as error:
                    self._refuse(error)
                    continue
                if found is not None:
                    return sent.finish(found)
                losses += 1
        finally:
            with self._lock:
                self._sent.remove(sent)
        reason = f"{MOST_LOSSES} dask workers were lost one after the other with it"
        return {id: Answer("crashed", reason, died=True) for id in job.trials}

    def _attempt(self, sent: _SentJob) -> remote.Found | None:
        """Run a job once; return None if its worker is lost."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        job = sent.next_attempt()
        future = self._client.submit(
            remote.run,
            self._package,
            self._run,
            sent.name,
            job,
            self._limits,
            pure=False,
            **self._where(job),
        )
        try:
            while not future.done():
                if self._stopping == "now":
                    raise StoppedError
                self._check_connection()
                if sent.restarted:
                    future.cancel()
                    self._ask(remote.abandon, self._run, sent.name)
                    return None
                time.sleep(0.05)
            found: remote.Found = future.result()
            return found if sent.is_from(found.execution) else None
        except (KilledWorker, FutureCancelledError):
            self._check_connection()
            return None
        except StoppedError:
            if self._stopping:
                raise
            return None  # its worker ended it, as this process was silent for too long
        finally:
            with contextlib.suppress(Exception):
                future.release()

    def _check_connection(self) -> None:
        connected = self._client.status in ("running", "connecting")
        if connected and self._workers():
            self._seen_at = time.monotonic()
        if not connected or time.monotonic() - self._seen_at > LOST_S:
            raise LostError(
                "the dask scheduler or all its workers are lost; every finished trial "
                "is kept, and the same command continues once there is a cluster again"
            )

    def _refuse(self, error: remote.DifferentWorkerError) -> None:
        """Give no job to a worker that joined later and differs from this process."""
        with self._lock:
            if error.worker not in self._refused:
                self._refused.add(error.worker)
                self.notes.append(f"{error}; it got no trial")
        if not self._workers():
            raise error

    # --- news ------------------------------------------------------------------------

    def _listen(self) -> None:
        """Ask each worker for news; a slow one does not hold up the others."""
        listening: dict[str, threading.Thread] = {}
        while not self._closed.wait(NEWS_S):
            for address in self._workers():
                if address not in listening or not listening[address].is_alive():
                    thread = threading.Thread(
                        target=self._fetch_news, args=(address,), daemon=True
                    )
                    listening[address] = thread
                    thread.start()

    def _fetch_news(self, address: str) -> None:
        with self._lock:
            by_name = {sent.name: sent for sent in self._sent}
        heard = {name: sent.heard for name, sent in by_name.items()}
        with contextlib.suppress(Exception):  # `run` notices a lost worker
            found = self._client.run(
                remote.news, self._run, heard, workers=[address], on_error="ignore"
            )
            for name, (execution, first, news) in found.get(address, {}).items():
                if name in by_name:
                    by_name[name].news(name, execution, first, news)

    # --- the end ---------------------------------------------------------------------

    def stop(self, *, now: bool) -> None:
        """Let learning trials write a checkpoint and end; `now` ends everything."""
        self._stopping = "now" if now else "soon"
        self._ask(remote.stop, self._run, now=now)

    def close(self) -> None:
        """End this run's workers, and the cluster if this process started it."""
        self._closed.set()
        self._ask(remote.close, self._run)
        self._close_client()

    def _ask(
        self,
        call: Callable[..., Any],
        *arguments: Any,
        within_s: float = ANSWER_S,
        **named: Any,
    ) -> dict[str, Any]:
        """Call a function on every worker; return the answers that come in time.

        Each worker is asked from a thread of its own, so that a suspended or cut-off
        worker does not hold up the others.
        """
        found: dict[str, Any] = {}

        def ask(address: str) -> None:
            with contextlib.suppress(Exception):  # without a cluster there is no answer
                found.update(
                    self._client.run(
                        call, *arguments, workers=[address], on_error="return", **named
                    )
                )

        threads = [
            threading.Thread(target=ask, args=(address,), daemon=True)
            for address in self._workers()
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + within_s
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return dict(found)

    def _close_client(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close()
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.close()


def _connect(scheduler: str | None, jobs: int) -> tuple[Client, LocalCluster | None]:
    """Return a client, and the cluster if this process started it."""
    try:
        from distributed import Client
    except ImportError as error:
        raise MisuseError(
            "--executor dask needs dask.distributed; "
            "pip install 'rnn-harness[distributed]'"
        ) from error
    # The run prints messages of its own for what distributed would log.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is None:
        cluster = start_cluster(jobs)
        return Client(cluster), cluster
    is_address = re.match(r"[a-z]+://", scheduler) is not None
    named = shortened(scheduler)
    if not (is_address or _is_file(scheduler)):
        raise MisuseError(
            f"--scheduler {named}: give an address, e.g. tcp://host:8786, or the "
            "scheduler file that `dask scheduler --scheduler-file` wrote"
        )
    where = {"address" if is_address else "scheduler_file": scheduler}
    try:
        return Client(**where, timeout=CONNECT_S), None
    except Exception as error:  # a scheduler file may hold anything
        more = ""
        if "TLS" in str(error):
            more = "; it asks for TLS, with the keys that dask's configuration names"
        raise MisuseError(
            f"no dask scheduler answers at {named} ({shortened(str(error))}){more}; "
            "start one with `dask scheduler`, or leave --scheduler out for a cluster "
            "of this machine"
        ) from error


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # no file can have such a name
        return False
