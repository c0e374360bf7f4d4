import random
from pathlib import Path

import pytest

from tests.faults.kills import VICTIMS, Campaign


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """`make test-all` runs more: `python -m tests.faults.kills --kills 100`."""
    campaign = Campaign(tmp_path, random.Random(0))
    campaign.run(4)
    assert campaign.problems == []
    assert campaign.kills == dict.fromkeys(VICTIMS, 1)
    assert campaign.resumed > 0
