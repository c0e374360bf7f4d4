import a_module_nobody_has  # noqa: F401

from harness import declare_cell

declare_cell("half", factory="missing_module:Half")
