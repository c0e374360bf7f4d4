"""Make what processes measure small, where this folder is on Python's path.

For tests that start processes; `tests/conftest.py` says which certify at all shapes. No
plugin could do this to a certificate, since none runs in the process that certifies.
Python imports a module of this name when it starts.
"""

import importlib.util
import sys


def two_shapes(certify):
    """Limit certificates to two shapes and few updates."""
    from harness.measure.certificate import differences, peers, trajectories

    # Short ones: padded reals, and embedded tokens in two layers that are cut in two.
    few = tuple(s for s in certify.PAIRWISE if s.time_steps == 13 and s.batch > 1)
    for module in (certify, differences, peers):
        module.PAIRWISE = few
    trajectories._STEADY_UPDATES = 3
    whole = trajectories.trajectories
    # One trajectory of three for each optimiser, as each is compiled separately.
    trajectories.trajectories = lambda name, typical: whole(name, typical)[:1]


def small_arrays(peak):
    """Measure the highest rates with small arrays and few calls."""
    peak.SIZES = peak.SIZES[:2]
    peak.EACH_S = 0.0
    peak.LEAST_COPY_BYTES = peak.MOST_COPY_BYTES = 2**20


def no_figures(contents):
    """Leave the figures out of reports, which take longer to draw than small trials."""
    contents._drawn = lambda part, results: []


CHANGES = {
    "harness.report.contents": no_figures,
    "harness.measure.certificate.certify": two_shapes,
    "harness.machine.peak": small_arrays,
}


class Changing:
    """Finds some modules and changes them, in the processes that import them.

    Other processes start as fast as without this.
    """

    def find_spec(self, name, path=None, target=None):
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Changing())
