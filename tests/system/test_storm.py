"""Three people and root at work, the daemon and the engine killed at random moments: nothing lost, nothing doubled."""

import os
import secrets

import pytest

from tests.soak.run import Order, place, run

pytestmark = pytest.mark.system

#: Seldom enough that people know what to expect of most of their containers.
ROOT_EVERY_S = 2.5


@pytest.mark.parametrize(
    ("image", "live_restore", "kills", "engine_kills"), [("trixie", False, 40, 3), ("engine28", True, 20, 2)]
)
def test_nothing_is_lost_or_doubled_in_a_storm(image: str, live_restore: bool, kills: int, engine_kills: int) -> None:
    seed = os.environ.get("SEED") or secrets.token_hex(4)
    print(f"SEED={seed}")
    order = Order(
        seed=seed, kills=kills, engine_kills=engine_kills, live_restore=live_restore, root_every_s=ROOT_EVERY_S
    )
    with place(image=image, live_restore=live_restore) as house:
        report = run(house.server, order)
    print(report.text())
    assert report.faults == ()
    assert report.refused["shell (not run)"] <= 2
    assert report.said["kills"] >= kills * 0.9
    for verb in ("create", "start", "stop", "remove", "shell", "shell alive"):
        assert report.done[verb] >= kills / 20, f"{verb} hardly happened: {report.done}"
    assert report.by_root.total() >= kills / 20, f"root hardly did anything: {report.by_root}"
