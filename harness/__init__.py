"""The measuring instrument: what recurrent networks learn, why, and how fast.

What a plugin file needs is re-exported here; the types it computes with are in
`harness.contract`.
"""

from harness.declarations import (
    declare_cell,
    declare_framework,
    declare_implementation,
    declare_task,
)

__all__ = [
    "declare_cell",
    "declare_framework",
    "declare_implementation",
    "declare_task",
]
