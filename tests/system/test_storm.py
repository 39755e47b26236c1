"""Three people at work while the daemon and the engine are killed at random moments: nothing lost, nothing doubled."""

import os
import secrets

import pytest

from tests.soak.run import Order, place, run

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("image", "live_restore", "kills", "engine_kills"), [("trixie", False, 40, 3), ("engine28", True, 20, 2)]
)
def test_nothing_is_lost_or_doubled_in_a_storm(image: str, live_restore: bool, kills: int, engine_kills: int) -> None:
    seed = os.environ.get("SEED") or secrets.token_hex(4)
    print(f"SEED={seed}")
    with place(image=image, live_restore=live_restore) as house:
        report = run(house.server, Order(seed=seed, kills=kills, engine_kills=engine_kills, live_restore=live_restore))
    print(report.text())
    assert report.faults == ()
    assert report.refused["shell (not run)"] <= 2
    assert report.said["kills"] >= kills * 0.9
    for verb in ("create", "start", "stop", "remove", "shell", "shell alive"):
        assert report.done[verb] >= kills / 10, f"{verb} hardly happened: {report.done}"
