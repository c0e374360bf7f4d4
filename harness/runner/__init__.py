"""The runner: the process of an implementation's code, apart from all that judges it.

A worker draws batches, computes the reference and compares. It asks a runner for what
an implementation computes, and gets copies of arrays back. So code of an implementation
can change neither the numbers it is compared with nor the functions that compute and
compare them.
"""
