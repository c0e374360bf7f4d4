"""One folder per trial, committed atomically, and its readers.

A trial is done when its `result.json` parses and the hashes in it match: one of its own
text, and one of each other file. That file is
written to a temporary name, synced, renamed, and its folder synced: the commit point.
"""

from harness.files.text import to_json, write_atomically, write_bytes_atomically
from harness.reading import Reading
from harness.store.attempt import Attempt, UnstorableError
from harness.store.checkpoint import Checkpoint
from harness.store.committed import NewerError
from harness.store.record import COUNTED, SCHEMA, TrialRecord
from harness.store.run_folder import LeftOut, RunFolder

__all__ = [
    "COUNTED",
    "SCHEMA",
    "Attempt",
    "Checkpoint",
    "LeftOut",
    "NewerError",
    "Reading",
    "RunFolder",
    "TrialRecord",
    "UnstorableError",
    "to_json",
    "write_atomically",
    "write_bytes_atomically",
]
