"""The cluster that a command starts for itself is of no use to anybody else."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from harness.errors import MisuseError
from harness.run.job import Options
from tests import helpers

if TYPE_CHECKING:
    from distributed.security import Security

    from harness.run.engine.cluster import DaskEngine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None,
        reason="no module 'distributed'",
    ),
]

Address = tuple[str, int]


def listeners() -> set[Address]:
    """Return where this process and those that it started listen."""
    here = psutil.Process()
    found = set()
    for process in [here, *here.children(recursive=True)]:
        for each in process.net_connections("inet"):
            if each.status == psutil.CONN_LISTEN:
                found.add((each.laddr.ip, each.laddr.port))
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[DaskEngine, set[Address]]]:
    """Return an engine with a cluster of its own, and where the cluster listens."""
    from harness.run.engine.cluster import DaskEngine

    before = listeners()
    engine = DaskEngine(helpers.REGISTRY, Options(jobs=1))
    yield engine, listeners() - before
    engine.close()


def test_nothing_listens_beyond_this_machine(
    cluster: tuple[DaskEngine, set[Address]],
) -> None:
    _, addresses = cluster
    # A scheduler, a nanny and a worker; the first and the last have a web server.
    assert len(addresses) == 5
    assert {host for host, _ in addresses} == {"127.0.0.1"}


def test_its_own_client_can_use_it(cluster: tuple[DaskEngine, set[Address]]) -> None:
    engine, _ = cluster
    assert engine._client.scheduler.address.startswith("tls://127.0.0.1:")
    assert engine._client.submit(sum, (1, 2)).result(timeout=helpers.PATIENCE_S) == 3


def strangers() -> list[tuple[str, Security | None, type[Exception], str]]:
    """Return what a stranger may try, and how each attempt ends.

    These are no TLS, and TLS with another key, which the last client also demands. A
    client without a key does not begin to connect; see the next test.
    """
    from distributed.comm import CommClosedError
    from distributed.comm.core import FatalCommClosedError
    from distributed.security import Security

    other = Security.temporary()
    strict = Security(
        require_encryption=True,
        tls_ca_file=other.tls_ca_file,
        tls_client_cert=other.tls_client_cert,
        tls_client_key=other.tls_client_key,
    )
    unknown = "TLS certificate does not match"
    return [
        ("tcp", None, CommClosedError, "in <TCP "),
        ("tls", other, FatalCommClosedError, unknown),
        ("tls", strict, FatalCommClosedError, unknown),
    ]


def test_no_client_without_its_key_can_connect(
    cluster: tuple[DaskEngine, set[Address]],
) -> None:
    from distributed import Client

    async def connect(address: str, **named: Security) -> None:
        # In the running loop: a client that has failed in a loop of its own may be
        # collected in the loop of the next one, which then never starts.
        async with Client(address, timeout=5, asynchronous=True, **named):
            pass

    engine, _ = cluster
    _, _, where = engine._client.scheduler.address.partition("://")
    for protocol, security, refused, words in strangers():
        named = {} if security is None else {"security": security}
        with pytest.raises(refused, match=words):
            asyncio.run(connect(f"{protocol}://{where}", **named))


def page(address: Address, name: str) -> int | None:
    """Return the status of a page, or None if there is no web server."""
    url = f"http://{address[0]}:{address[1]}/{name}"
    try:
        with urllib.request.urlopen(url, timeout=30) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


def test_every_other_part_ends_a_connection_without_its_key(
    cluster: tuple[DaskEngine, set[Address]],
) -> None:
    _, addresses = cluster
    encrypted = [each for each in addresses if page(each, "") is None]
    assert len(encrypted) == 3  # a scheduler, a nanny and a worker
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for address in encrypted:
        with (
            socket.create_connection(address, timeout=30) as plain,
            pytest.raises(ssl.SSLError, match="certificate required"),
            context.wrap_socket(plain) as connection,
        ):
            connection.recv(1)  # a client learns what is missing when it reads


def test_a_web_server_shows_nothing(cluster: tuple[DaskEngine, set[Address]]) -> None:
    _, addresses = cluster
    names = ("", "status", "health", "metrics", "info/main/workers.html")
    found = [page(address, name) for address in addresses for name in names]
    assert sorted(status for status in found if status) == [404] * 2 * len(names)


def _blocks(language: str) -> list[str]:
    """Return the examples of the docs in a language."""
    text = (helpers.ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_a_cluster_with_keys_as_the_docs_make_them_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    from harness.run.engine.cluster import DaskEngine

    monkeypatch.chdir(tmp_path)
    (keys,) = [text for text in _blocks("python") if "Security.temporary" in text]
    (config,) = [text for text in _blocks("yaml") if "require-encryption" in text]
    subprocess.run([sys.executable, "-c", keys], check=True)
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    helpers.write(tmp_path / "keys.yaml", config.replace("/home/me", str(tmp_path)))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "keys.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(helpers.ROOT))
    file = tmp_path / "cluster.json"
    dask_cli = (sys.executable, "-m", "distributed.cli.dask_")
    named = ("--scheduler-file", str(file), "--no-dashboard")
    started = []
    try:
        for kind, more in (
            ("scheduler", ("--protocol", "tls", "--host", "127.0.0.1", "--port", "0")),
            ("worker", ("--nthreads", "1", "--no-nanny")),
        ):
            command = [*dask_cli[:-1], dask_cli[-1] + kind, *named, *more]
            with (tmp_path / kind).open("wb") as log:
                started.append(subprocess.Popen(command, stderr=log, stdout=log))
            helpers.wait_for(file.exists, "the scheduler")
        for scheduler in (str(file), _address(file)):
            with pytest.raises(MisuseError, match="asks for TLS, with the keys that"):
                DaskEngine(helpers.REGISTRY, Options(scheduler=scheduler))
        found = dask.config.collect(paths=[str(tmp_path / "keys.yaml")], env={})
        with dask.config.set(dask.config.merge(dask.config.config, found)):
            engine = DaskEngine(helpers.REGISTRY, Options(scheduler=str(file)))
            assert engine.slots == 1
            engine.close()
    finally:
        for process in started:
            process.kill()
            process.wait()


def _address(file: Path) -> str:
    return str(json.loads(file.read_text(encoding="utf-8"))["address"])


def test_without_the_library_that_makes_keys_no_cluster_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.run.engine.cluster import DaskEngine

    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MisuseError, match="needs cryptography to protect"):
        DaskEngine(helpers.REGISTRY, Options(jobs=1))
