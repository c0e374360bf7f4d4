"""Start a dask cluster for one command, which nobody else on the machine can use.

A dask worker runs what its scheduler sends, and a scheduler takes orders from any
client. So all parts of the cluster talk TLS, with a key that is made for it and that
only they have, and listen where only this machine reaches them.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

from harness.errors import MisuseError
from harness.machine.devices import visible
from harness.machine.gpu import VISIBLE, gpu_names
from harness.run.signals import handled

if TYPE_CHECKING:
    from distributed import LocalCluster, Nanny

LOOPBACK = "127.0.0.1"

_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,
    # Each part also has a web server, without TLS. Without pages it tells nothing; the
    # workers inherit this.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def start_cluster(jobs: int) -> LocalCluster:
    """Start a scheduler and `jobs` workers of one thread each.

    Raises:
        MisuseError: If the library is missing that makes keys.
    """
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise MisuseError(
            "--executor dask needs cryptography to protect the cluster that it starts; "
            "pip install 'rnn-harness[distributed]'"
        ) from error
    with (
        # Ctrl-C in a terminal reaches the workers too; only the driver handles it.
        handled(signal.SIG_IGN, signal.SIGINT),
        dask.config.set(_CONFIG),
    ):
        return LocalCluster(
            n_workers=jobs,
            worker_class=_nanny(),
            threads_per_worker=1,
            memory_limit=0,  # trials have a limit of their own
            host=LOOPBACK,
            security=security,
            silence_logs=logging.CRITICAL,  # or a stranger's attempts would be printed
            dashboard_address=None,
            # Its web server would take a fixed port, which may be in use.
            scheduler_kwargs={"dashboard_address": f"{LOOPBACK}:0"},
        )


def _nanny() -> type[Nanny]:
    """Return a class that starts a worker here; each GPU is given to one worker."""
    from distributed import Nanny

    count = len(gpu_names())

    class OfOneGpu(Nanny):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            number = int(named["name"])
            if number < count:
                named["resources"] = {"GPU": 1}
                named["env"] = {VISIBLE: visible(f"cuda:{number}")}
            super().__init__(*arguments, **named)

    return OfOneGpu
