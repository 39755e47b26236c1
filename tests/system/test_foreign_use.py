"""What uses a GPU without us, what is left on one, and a GPU that goes: nothing of it is given away."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.house import House, house
from tests.testbed.server import DEFAULT_LAYOUT, until

pytestmark = pytest.mark.system

VENDOR = ("docker", "run", "-d", "--name", "foreign")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two whole cards, so that it shows at once which one is given."""
    layout = json.loads(DEFAULT_LAYOUT.read_text())
    layout["gpus"] = layout["gpus"][:2]
    file: Path = tmp_path_factory.mktemp("layout") / "two.json"
    file.write_text(json.dumps(layout))
    with house(layout=file) as made:
        yield made


@contextmanager
def host_process(home: House, gpu: int, mib: int, user: str = "carol") -> Iterator[int]:
    """A real process of a person's in the box, which the card shows with its memory."""
    command = f"exec sleep 300 & echo $! >/tmp/pid-{gpu}; wait"
    process = home.server.popen("sh", "-c", command, user=user, own_cgroup=True)
    until("it runs", lambda: home.server.exec("test", "-s", f"/tmp/pid-{gpu}", check=False).returncode == 0, 5)
    pid = int(home.server.file(f"/tmp/pid-{gpu}"))
    card = home.server.nvml.gpu(gpu)
    card.add_process(pid, mib)
    try:
        yield pid
    finally:
        card.clear_processes()
        home.server.exec("kill", str(pid), check=False)
        home.server.exec("rm", "-f", f"/tmp/pid-{gpu}")
        process.communicate(timeout=10)


def given(home: House, user: str = "alice", name: str = "thesis") -> list[str]:
    return list(home.create(user, name)["slots"])


# ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_card_with_a_process_of_the_host_is_not_given(clean: House) -> None:
    with host_process(clean, 0, 900):
        clean.wait_for_slot("0", "occupied", 5)
        until("she is named", lambda: "a host process of carol" in clean.slots()["0"]["reason"], 5)
        assert given(clean) == ["1"]
        said = clean.refused("bob", "container-create", "his", "bb", code=75)
        assert "GPU 0 in use by a host process of carol; GPU 1 reserved by" in said or "GPU 1 held by alice" in said
    clean.wait_for_free("0", 5)


def test_a_foreign_container_with_a_vendor_device_keeps_its_card(clean: House) -> None:
    clean.server.exec(*VENDOR, "--device", "nvidia.com/gpu=0", "bb", "sleep", "300")
    clean.wait_for_slot("0", "occupied", 5)
    assert given(clean) == ["1"]
    clean.server.docker("pause", "foreign")
    time.sleep(1.5)
    assert clean.slots()["0"]["state"] == "occupied"
    clean.server.docker("unpause", "foreign")
    clean.server.docker("kill", "foreign")
    clean.wait_for_free("0", 5)


def test_a_foreign_container_with_all_devices_keeps_every_card(clean: House) -> None:
    clean.server.exec(*VENDOR, "--device", "nvidia.com/gpu=all", "bb", "sleep", "300")
    clean.wait_for_slot("1", "occupied", 5)
    said = clean.refused("alice", "container-create", "thesis", "bb", code=75)
    assert "GPU 0-1 in use by a container outside ds01d" in said
    clean.server.docker("rm", "-f", "foreign")
    clean.wait_for_free("0", 5)


def test_a_foreign_container_on_a_card_of_ours_is_shown_and_takes_nothing_away(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.exec(*VENDOR, "--device", "nvidia.com/gpu=0", "bb", "sleep", "300")
    time.sleep(2)

    assert clean.of("alice", "thesis")["status"] == "running"
    assert clean.slots()["0"]["state"] == "in use"
    clean.run("alice", "container-stop", "thesis", "--release")
    clean.wait_for_slot("0", "occupied", 5)


# ── what is left ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_memory_that_stays_after_a_release_keeps_the_card_until_it_goes(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.nvml.gpu(0).held_mib = 4000
    clean.run("alice", "container-stop", "thesis")
    left = clean.server.popen("container-stop", "thesis", "--release", user="alice")

    seen = clean.wait_for_slot("0", "lingering", 5)
    assert "4000 MiB" in seen["reason"]
    assert given(clean, "bob", "his") == ["1"]

    clean.server.nvml.gpu(0).held_mib = 0
    clean.wait_for_free("0", 8)
    left.communicate(timeout=10)
    assert clean.of("alice", "thesis")["status"] == "parked"


def test_memory_that_stays_on_a_card_nobody_holds_keeps_it_too(clean: House) -> None:
    clean.server.nvml.gpu(0).held_mib = 4000
    clean.wait_for_slot("0", "occupied", 5)
    assert given(clean) == ["1"]


# ── a card that goes ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_card_that_is_lost_while_held_is_taken_back_and_the_next_start_gets_another(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.run("alice", "container-stop", "thesis")
    clean.server.nvml.gpu(0).lost = True

    clean.wait_for("alice", "thesis", "parked", 10)
    clean.run("alice", "container-start", "thesis")
    assert clean.devices("alice", "thesis") == {"/dev/nvidia1"}


def test_a_card_that_is_lost_under_a_running_container_is_released_when_that_has_ended(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.nvml.gpu(0).lost = True

    until("it is told", lambda: "its GPU is gone" in clean.run("alice", "container-why", "thesis").stdout, 10)
    assert clean.of("alice", "thesis")["status"] == "running"
    assert given(clean, "bob", "his") == ["1"]
    clean.run("alice", "container-stop", "thesis", timeout=30)
    clean.wait_for("alice", "thesis", "parked", 10)


def test_while_the_driver_is_away_nothing_is_given_and_nothing_is_concluded(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.nvml.unload_driver()
    try:
        until("it is said", lambda: "cannot see the GPUs" in clean.notices(), 10)
        assert clean.of("alice", "thesis")["status"] == "running"
        assert "cannot see" in clean.refused("bob", "container-create", "his", "bb", code=75)
        clean.run("alice", "container-stop", "thesis")
        assert clean.of("alice", "thesis")["slots"] == ["0"]
    finally:
        clean.server.nvml.load_driver()
    until("it is over", lambda: "cannot see the GPUs" not in clean.notices(), 10)
    assert given(clean, "bob", "his") == ["1"]


def test_a_driver_that_hangs_keeps_nobody_from_listing_and_stopping(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.nvml.fault("nvmlDeviceGetMemoryInfo_v2", delay_ms=60_000, times=1)
    time.sleep(2)
    begun = time.monotonic()
    clean.run("alice", "container-list")
    clean.run("alice", "container-stop", "thesis")
    assert time.monotonic() - begun < 5
