"""Which recurrent kernel runs, read from the program that XLA compiled."""

from __future__ import annotations

import re

# Matrix products by a library, in any loop: they do not identify the recurrence.
_PRODUCTS = ("__cublas$", "__cudnn$", "__onednn$")


def kernel_of(program: str) -> str:
    """Return the kernel of the recurrence that an HLO module's text shows.

    It is "cuDNN", "custom call NAME" for a plugin's own kernel, "XLA while loop", or
    "XLA operations" if no loop is left, for example because it was unrolled.
    """
    targets = re.findall(r'custom_call_target="([^"]+)"', program)
    if any("cudnn_rnn" in target for target in targets):
        return "cuDNN"
    own = [target for target in targets if not target.startswith(_PRODUCTS)]
    if own:
        return f"custom call {own[0]}"
    if re.search(r"\bwhile\(", program):
        return "XLA while loop"
    return "XLA operations"
