"""Limit certificates to two shapes and few updates, where this folder is on the path.

For tests of layers in frameworks that take seconds to compile each shape; the whole
certificate of each framework is tested with its built-in implementations. No plugin
could do this, since none runs in the process that certifies. Python imports a module of
this name when it starts.
"""

from harness.measure.certificate import certify as parity
from harness.measure.certificate import differences, peers, trajectories

# Short ones: padded reals, and embedded tokens in two layers that are cut in two.
FEW = tuple(s for s in parity.PAIRWISE if s.time_steps == 13 and s.batch > 1)
parity.PAIRWISE = FEW
differences.PAIRWISE = FEW
peers.PAIRWISE = FEW
trajectories._STEADY_UPDATES = 3
whole = trajectories.trajectories
# One trajectory of three for each optimiser, as each is compiled separately.
trajectories.trajectories = lambda name, typical: whole(name, typical)[:1]
