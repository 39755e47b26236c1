"""The driver hangs, dies, loses a card, comes back with other numbers: nothing is concluded from what is not seen."""

import time
from collections.abc import Iterator

import pytest

from tests.soak.run import place
from tests.system.house import POLICY, House
from tests.testbed.server import until

pytestmark = pytest.mark.system

#: Longer than a look at a card may take (5 s); the child that comes next hangs for as long once more.
_HANGS_MS = 8_000


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with place(image="trixie", live_restore=False, policy=POLICY) as house:
        yield house


def child(house: House) -> int:
    """The process that asks the driver, or 0."""
    daemon = house.server.main_pid("ds01d.service")
    found = house.server.exec("pgrep", "-P", str(daemon), "-f", "nvml.child", check=False).stdout.split()
    return int(found[0]) if found else 0


def nothing_is_concluded(house: House) -> None:
    """What runs runs on with its slot, what is released is not free yet, and reads go on."""
    assert house.of("alice", "thesis")["status"] == "running"
    assert house.of("alice", "thesis")["slots"] == ["4:0"]
    house.slots()


def test_a_child_that_is_killed_is_started_again(clean: House) -> None:
    clean.started("alice", "thesis")
    before = child(clean)
    assert before
    clean.server.exec("kill", "-KILL", str(before))
    nothing_is_concluded(clean)
    until("another one asks", lambda: child(clean) not in {0, before}, 15)
    clean.create("bob", "his")
    clean.agrees()


def test_a_driver_that_hangs_holds_a_release_back_and_nothing_else(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.started("bob", "his", "--gpu-type", "3g.40gb")
    before = child(clean)
    clean.server.nvml.fault("*", delay_ms=_HANGS_MS)
    clean.rpc("bob", "container.stop", name="his", release=True, wait_s=1)
    began = time.monotonic()
    nothing_is_concluded(clean)
    assert time.monotonic() - began < 4
    clean.run("carol", "container-create", "notes", "bb", "--cpu-only")
    until("the child is given up", lambda: child(clean) != before, 20)
    assert clean.slots()["4:2"]["state"] != "free"

    clean.server.nvml.clear_faults()
    clean.wait_for_free("4:2", 40)
    clean.agrees()


def test_who_waits_for_a_driver_that_hangs_hears_why_without_a_terminal_too(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.run("alice", "container-stop", "thesis", "--force")
    clean.server.nvml.fault("*", delay_ms=_HANGS_MS)
    began = time.monotonic()
    said = clean.refused("alice", "container-stop", "thesis", "--release", code=75)
    assert time.monotonic() - began < 30
    # The first look may still be out when he is answered.
    assert "the GPUs cannot be seen" in said or "the engine or the driver told nothing" in said, said

    clean.server.nvml.clear_faults()
    clean.wait_for_free("4:0", 40)
    assert clean.of("alice", "thesis")["status"] == "parked"


def test_a_card_that_fell_off_the_bus_is_not_given_and_its_container_comes_to_its_end(clean: House) -> None:
    clean.started("alice", "thesis", "--gpu-type", "full")
    clean.server.nvml.gpus[0].lost = True
    until("it is shown", lambda: clean.slots().get("0", {}).get("state") != "in use", 20)
    assert clean.of("alice", "thesis")["status"] == "running"
    clean.started("bob", "his", "--gpu-type", "full")
    assert clean.devices("bob", "his") == {"/dev/nvidia1"}
    clean.run("alice", "container-stop", "thesis")
    clean.server.nvml.gpus[0].lost = False
    clean.server.nvml.load_driver()
    clean.wait_for_free("0", 40)
    clean.agrees()


def test_a_driver_that_is_unloaded_and_back_frees_and_doubles_nothing(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.nvml.unload_driver()
    time.sleep(3)  # more than two looks
    nothing_is_concluded(clean)
    said = clean.refused("bob", "container-create", "his", "bb", code=75)
    assert "GPU" in said
    clean.server.nvml.load_driver()
    until(
        "there are cards again",
        lambda: clean.run("bob", "container-create", "his", "bb", check=False).returncode == 0,
        30,
    )
    assert clean.of("bob", "his")["slots"] == ["4:1"]
    clean.agrees()


def test_cards_that_come_back_with_other_minors_are_permitted_anew(clean: House) -> None:
    clean.create("alice", "thesis", "--gpu-type", "full")
    one, two = clean.server.nvml.gpus[:2]
    try:
        clean.server.nvml.unload_driver()
        one.minor, two.minor = two.minor, one.minor
        clean.server.nvml.load_driver()
        until("the permission says so", lambda: "/dev/nvidia1" in "".join(clean.picture().specs.values()), 30)
        clean.run("alice", "container-start", "thesis")
        assert clean.devices("alice", "thesis") == {"/dev/nvidia1"}
        clean.agrees()
        clean.run("alice", "container-cleanup", "thesis", "--yes", "--force")
    finally:
        clean.server.nvml.unload_driver()
        one.minor, two.minor = two.minor, one.minor
        clean.server.nvml.load_driver()
    until("all is as before", lambda: clean.slots()["0"]["state"] == "free", 30)
