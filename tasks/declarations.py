"""Declarations of the built-in tasks."""

from harness.declarations import declare_task

adding = declare_task(
    "adding",
    factory="tasks.adding:Adding",
    summary="add the two marked numbers of a long sequence",
)

copy_memory = declare_task(
    "copy-memory",
    factory="tasks.copy_memory:CopyMemory",
    summary="recall a few symbols after a long gap",
)
