"""Lets a worker certify at two shapes and over few updates.

For tests of layers in frameworks that take seconds to compile each shape; the whole
certificate of each framework is tested with its built-in implementations.
"""

from harness import declare_task
from harness.measure.certificate import certify as parity
from harness.measure.certificate import differences, peers, trajectories

# Reals padded, then embedded tokens in two layers that are cut in two; short ones.
FEW = tuple(s for s in parity.PAIRWISE if s.time_steps == 13 and s.batch > 1)
parity.PAIRWISE = FEW
differences.PAIRWISE = FEW
peers.PAIRWISE = FEW
trajectories._STEADY_UPDATES = 3
whole = trajectories.trajectories
# One of each optimiser's three: each is compiled anew.
trajectories.trajectories = lambda name, typical: whole(name, typical)[:1]

# A plugin file must declare something.
declare_task("of-few-shapes", factory="few_shapes:none")
