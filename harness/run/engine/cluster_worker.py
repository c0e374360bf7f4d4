"""What a dask worker does: it runs jobs, and keeps their news for the driver.

Everything here runs in the worker's process; `harness.run.engine.cluster` calls it.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.declarations import Declaration
from harness.errors import HarnessError, MisuseError
from harness.interpreters.probe import hash_of_sources
from harness.machine.facts import installed_versions
from harness.registry import Registry
from harness.run.engine.local import LocalEngine
from harness.run.engine.pool import WorkerPool
from harness.run.engine.session import run_job
from harness.run.job import Answer, Checkpointed, Job, Limits, News
from harness.run.plan.fingerprint import files_of, forget_files, left_out, source_hash

SILENCE_S = 60.0
"""A worker ends the jobs of a driver from which it has heard nothing for so long."""

Facts = Mapping[str, Mapping[str, str]]


class DifferentWorkerError(HarnessError):
    """A dask worker has other plugin code or library versions.

    Attributes:
        worker: The address of the worker.
    """

    def __init__(self, worker: str, differing: str) -> None:
        super().__init__(worker, differing)
        self.worker, self._differing = worker, differing

    def __str__(self) -> str:
        return (
            f"dask worker {self.worker} differs from this process: {self._differing}; "
            "install the same there and start the worker again"
        )


@dataclass(frozen=True)
class Package:
    """Plugin files for a worker, and facts that are compared with the worker's own.

    Attributes:
        plugins: The path of each plugin file below a folder.
        files: The content of each plugin file, of each module that one imports and
            that is not installed, and of each file that these name, by path below the
            folder.
        distributions: The libraries whose versions are compared.
        facts: The facts of the driver.
    """

    plugins: tuple[str, ...]
    files: Mapping[str, bytes]
    distributions: tuple[str, ...]
    facts: Facts = field(default_factory=dict)

    @classmethod
    def of(cls, registry: Registry) -> Package:
        """Pack the plugin files of a registry."""
        folders = {file.parent: str(n) for n, file in enumerate(registry.files)}
        plugins = {f: f"{folders[f.parent]}/{f.name}" for f in registry.files}
        paths = {path: file for file, path in plugins.items()}
        for plugin in registry.declarations:
            for path, file in files_of(plugin).items():
                assert plugin.file is not None
                if path.startswith("..") or left_out(plugin):
                    raise MisuseError(_not_sent(plugin, path))
                paths[f"{folders[plugin.file.parent]}/{path}"] = file
        package = cls(
            tuple(plugins.values()),
            {path: file.read_bytes() for path, file in paths.items()},
            ("numpy", *registry.distributions),
        )
        return replace(package, facts=package.facts_of(registry))

    def facts_of(self, registry: Registry) -> Facts:
        """Return a hash of every plugin's source, and the version of every library."""
        return {
            "source": {
                **{f"{d.kind} {d.name}": source_hash(d) for d in registry.declarations},
                "rnn-harness": hash_of_sources(),
            },
            "version": {
                **installed_versions(self.distributions),
                "Python": platform.python_version(),
            },
        }

    def unpack(self, folder: Path) -> tuple[Registry, Facts]:
        """Write the files to a folder and read the plugins there.

        Returns:
            A registry that has read them, and its facts.
        """
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        with _unpacking:
            try:
                registry = Registry.discover(folder / path for path in self.plugins)
                return registry, self.facts_of(registry)
            finally:
                _forget(folder)


def _not_sent(plugin: Declaration, path: str) -> str:
    what = ", ".join(left_out(plugin)) or f"{path} (outside the plugin's folder)"
    return (
        f"{plugin.name}: dask workers are not sent {what}; put what the plugin reads "
        "into its folder and name it in files"
    )


_unpacking = threading.Lock()


def _forget(folder: Path) -> None:
    """Make Python forget the modules of a folder.

    This process outlives a run, and the next run may send another file of that name.
    """
    sys.path[:] = [path for path in sys.path if not _is_in(path, folder)]
    modules = list(sys.modules.items())
    # Before the first is removed, since a package asks the one above where it is.
    for name in [name for name, module in modules if _is_of(module, folder)]:
        del sys.modules[name]
    forget_files()


def _is_of(module: object, folder: Path) -> bool:
    spec = getattr(module, "__spec__", None)
    paths = [getattr(module, "__file__", None) or "/"]
    paths += getattr(spec, "submodule_search_locations", None) or []
    return any(_is_in(path, folder) for path in paths)


def _is_in(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder.resolve())


def difference(here: Facts, there: Facts) -> str | None:
    """Return how a worker differs from its driver, or None."""
    for what, values in here.items():
        for name in {**values, **there[what]}:
            ours, theirs = values.get(name), there[what].get(name)
            if ours != theirs:
                shown = [("none" if v is None else v) for v in (ours, theirs)]
                return f"{what} of {name} is {shown[1]}, here {shown[0]}"
    return None


class Recorder:
    """A sink that keeps all news of a job until the driver asks for it.

    Attributes:
        execution: The name of this execution of the job.
        pool: The pool that runs the job, or None before it does.
    """

    def __init__(self) -> None:
        self.execution = uuid.uuid4().hex
        self.pool: WorkerPool | None = None
        self._news: list[News | None] = []
        self._last_checkpoint: int | None = None
        self._lock = threading.Lock()

    def __call__(self, news: News) -> None:
        """Keep the news; of checkpoints only the newest."""
        with self._lock:
            if isinstance(news, Checkpointed):
                if self._last_checkpoint is not None:
                    self._news[self._last_checkpoint] = None
                self._last_checkpoint = len(self._news)
            self._news.append(news)

    def news(self, first: int = 0) -> list[News | None]:
        """Return the news from a number on, None for a checkpoint that is dropped."""
        with self._lock:
            return self._news[first:]


@dataclass(frozen=True)
class Found:
    """The answers of a job, and all its news."""

    execution: str
    news: list[News | None]
    answers: Mapping[str, Answer]


class _Host:
    """The jobs of one run on this dask worker, and the pools that run them."""

    def __init__(self, run: str, package: Package, limits: Limits) -> None:
        self._run = run
        self._folder = tempfile.TemporaryDirectory(prefix="rnn-harness-")
        registry, facts = package.unpack(Path(self._folder.name))
        differing = difference(package.facts, facts)
        if differing is not None:
            raise DifferentWorkerError(_address(), differing)
        self.engine = LocalEngine(registry, 1, limits, lambda _: None)
        self.recorders: dict[str, Recorder] = {}
        self.heard_at_s = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._end_without_driver, daemon=True).start()

    def _end_without_driver(self) -> None:
        """End the running jobs if the driver, which asks every second, is silent."""
        while not self._closed.wait(1):
            if time.monotonic() - self.heard_at_s > SILENCE_S:
                self.engine.stop(now=True)
                close(self._run)

    def run(self, name: str, job: Job) -> Found:
        recorder = self.recorders[name] = Recorder()
        try:
            with self.engine.lend() as pool:
                recorder.pool = pool
                answers = run_job(pool, job, recorder)
        finally:
            self.recorders.pop(name, None)
        where = {"dask_worker": _address()}
        answers = {
            trial_id: replace(answer, facts={**answer.facts, **where})
            for trial_id, answer in answers.items()
        }
        return Found(recorder.execution, recorder.news(), answers)

    def close(self) -> None:
        self._closed.set()
        self.engine.close()
        self._folder.cleanup()


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


_hosts: dict[str, _Host] = {}
_lock = threading.Lock()


def describe(package: Package) -> Facts:
    """Return this worker's facts, for a driver to compare."""
    with tempfile.TemporaryDirectory() as folder:
        return package.unpack(Path(folder))[1]


def run(package: Package, run: str, name: str, job: Job, limits: Limits) -> Found:
    """Run a job on a worker pool of this dask worker.

    Raises:
        DifferentWorkerError: If this worker differs from its driver.
        StoppedError: If the run was stopped at once.
    """
    with _lock:
        if run not in _hosts:
            _hosts[run] = _Host(run, package, limits)
        host = _hosts[run]
    return host.run(name, job)


def news(
    run: str, heard: Mapping[str, tuple[str, int]]
) -> dict[str, tuple[str, int, list[News | None]]]:
    """Return the news of a run's jobs that the driver does not have yet.

    Args:
        run: The run.
        heard: The news that the driver has, by job: their execution and their number.

    Returns:
        The new news, by job: their execution, the number of the first, and the news.
    """
    host = _hosts.get(run)
    if host is None:
        return {}
    host.heard_at_s = time.monotonic()
    found = {}
    for name, recorder in list(host.recorders.items()):
        execution, count = heard.get(name, ("", 0))
        first = count if execution == recorder.execution else 0
        found[name] = (recorder.execution, first, recorder.news(first))
    return found


def abandon(run: str, job: str) -> None:
    """End a job that runs elsewhere now, and the pool that runs it here."""
    host = _hosts.get(run)
    recorder = host.recorders.get(job) if host is not None else None
    if recorder is not None and recorder.pool is not None:
        recorder.pool.stop(now=True)


def stop(run: str, *, now: bool) -> None:
    """Stop the worker pools of a run."""
    host = _hosts.get(run)
    if host is not None:
        host.engine.stop(now=now)


def close(run: str) -> None:
    """End the worker pools of a run."""
    host = _hosts.pop(run, None)
    if host is not None:
        host.close()
