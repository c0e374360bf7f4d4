"""The process that runs an implementation's code, apart from all that judges it.

A judging process draws batches, computes the reference and compares. It asks a hosting
process for what an implementation computes, and gets copies of arrays back. So code of
an implementation can change neither the numbers it is compared with nor the functions
that compute and compare them.
"""
