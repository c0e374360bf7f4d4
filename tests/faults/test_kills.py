import random
from pathlib import Path

import pytest

from tests.faults.kills import VICTIMS, Campaign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """`make test-all` runs more: `python -m tests.faults.kills --kills 100`."""
    campaign = Campaign(tmp_path, random.Random(0))
    for kills in (
        20,
        40,
        60,
    ):  # more, if by chance no trial resumed from a checkpoint
        if not campaign.resumed:
            campaign.run(kills)
    assert campaign.problems == []
    assert campaign.kills.total() >= 20
    assert all(campaign.kills[victim] > 0 for victim in VICTIMS)
    assert campaign.resumed > 0
