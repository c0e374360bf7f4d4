"""Why is a certificate broken? Known mistakes are tried one by one.

A hypothesis is a change to the reference, such as two exchanged gates. If the changed
reference agrees with what was found, within the tolerance of the certificate, that
change is the likely cause. Nothing is tried if nothing is broken.
"""

from harness.measure.certificate.diagnosis.causes import diagnose

__all__ = ["diagnose"]
