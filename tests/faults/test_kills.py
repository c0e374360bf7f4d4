import random
from pathlib import Path

import pytest

from tests.faults.kills import VICTIMS, Campaign


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_random_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """More of them: `python -m tests.faults.kills --kills 100`, in `make test-all`."""
    campaign = Campaign(tmp_path, random.Random(0))
    campaign.run(20)
    assert campaign.problems == []
    assert campaign.kills.total() == 20
    assert all(campaign.kills[victim] > 2 for victim in VICTIMS)
    assert campaign.resumed > 0
