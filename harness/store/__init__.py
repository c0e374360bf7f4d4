"""One folder per trial, committed atomically, and its readers.

A trial is done when its `result.json` parses and the hashes in it match. That file is
written to a temporary name, synced, renamed, and its folder synced: the commit point.
"""

from harness.store.attempt import Attempt
from harness.store.checkpoint import Checkpoint
from harness.store.files import to_json, write_atomically
from harness.store.record import COUNTED, SCHEMA, Reading, TrialRecord
from harness.store.run_folder import RunFolder

__all__ = [
    "COUNTED",
    "SCHEMA",
    "Attempt",
    "Checkpoint",
    "Reading",
    "RunFolder",
    "TrialRecord",
    "to_json",
    "write_atomically",
]
