"""Why a certificate is broken: mistakes tried one by one against what was found.

A hypothesis is a change to the reference, such as two gates exchanged. Where the
changed reference agrees with what was found, within the tolerance that the right one
missed, the change is the likely cause. Nothing is tried while nothing is broken.
"""

from harness.measure.certificate.diagnosis.causes import diagnose

__all__ = ["diagnose"]
