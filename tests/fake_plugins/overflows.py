from dataclasses import replace

import numpy as np

from harness import declare_task
from tasks.adding import Adding

declare_task("overflows", factory="overflows:Overflows")

SOUND_BATCHES = 36  # two compared, one held out, four read back, 29 to learn from


class Overflows(Adding):
    """Adding, with huge targets after `SOUND_BATCHES` batches."""

    def __init__(self):
        self.info = replace(Adding.info, name="overflows")
        self.drawn = 0

    def sample(self, rng, *, batch, length):
        found = super().sample(rng, batch=batch, length=length)
        self.drawn += 1
        if self.drawn <= SOUND_BATCHES:
            return found
        return replace(found, targets=np.full_like(found.targets, 1e30))
