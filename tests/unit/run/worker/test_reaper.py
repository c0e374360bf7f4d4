"""The process that ends the workers of a process that has ended."""

from harness.run.worker.reaper import Reaper


def test_a_thread_that_ends_a_worker_at_exit_is_not_disturbed() -> None:
    """The pipe to the reaper is closed already."""
    one = Reaper()
    one._process.communicate()
    one.watch(2**30)
    one.forget(2**30)
