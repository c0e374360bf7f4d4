"""Which nodes ran where, read from ONNX Runtime's profile."""

from __future__ import annotations

import json
from pathlib import Path

RECURRENT = ("RNN", "GRU", "LSTM")


def kernel_of(profile: Path) -> str:
    """Return "GRU on CPU" from a profile, or all nodes if no recurrent one ran."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    ran = [e.get("args", {}) for e in events if e.get("cat") == "Node"]
    seen = dict.fromkeys(
        (arguments["op_name"], arguments.get("provider", ""))
        for arguments in ran
        if "op_name" in arguments
    )
    nodes = [pair for pair in seen if pair[0] in RECURRENT]
    return ", ".join(
        f"{operator} on {provider.removesuffix('ExecutionProvider')}"
        for operator, provider in nodes or seen
    )
