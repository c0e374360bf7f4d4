"""The process that ends the workers of a process that has ended."""

import uuid

from harness.run.worker.reaper import Reaper
from tests import helpers


def test_a_thread_that_ends_a_worker_at_exit_is_not_disturbed() -> None:
    """The pipe to the reaper is closed already."""
    one = Reaper()
    one._process.communicate()
    one.watch(2**30)
    one.forget(2**30)


def test_a_process_that_starts_another_while_it_is_killed_does_not_get_away() -> None:
    token = uuid.uuid4().hex
    one = Reaper()
    worker = helpers.worker_whose_children_fork(token)
    one.watch(worker.pid)
    one._process.communicate()
    worker.communicate()
    helpers.wait_for(lambda: not helpers.marked(token), "every process to be gone")
