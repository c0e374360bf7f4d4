import random
from pathlib import Path

import pytest

from tests.faults.kills import VICTIMS, Campaign


@pytest.mark.timeout(900)
def test_a_hundred_random_kills_lose_nothing_and_repeat_nothing(
    tmp_path: Path,
) -> None:
    campaign = Campaign(tmp_path, random.Random(0))
    campaign.run(100)
    assert campaign.problems == []
    assert campaign.kills.total() == 100
    assert all(campaign.kills[victim] > 10 for victim in VICTIMS)
    assert campaign.resumed > 5
