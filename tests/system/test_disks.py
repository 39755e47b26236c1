"""A disk that is slow, full or read-only: reads and shells go on, nothing acts, no deadline fires, nothing is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

import pytest

from tests.soak.run import place
from tests.system.disk import Disk, small_disk
from tests.system.house import House
from tests.testbed.server import until
from tests.testbed.terminal import Terminal

pytestmark = pytest.mark.system

#: A hold lasts 10 s, the shortest there is.
_POLICY = """\
groups: {student: {}}
defaults: {max_mig_instances: 3, gpu_hold_after_stop: 1s, created_timeout: 30m}
policies: {sigterm_grace: 2s}
"""
#: A listing takes at most so long while the disk hangs; seconds.
_READ_S = 2.0


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    with small_disk() as disk:
        yield disk


@pytest.fixture(scope="module")
def home(disk: Disk) -> Iterator[House]:
    with place(image="trixie", live_restore=False, policy=_POLICY, prepare=disk.put_under) as house:
        yield house


@contextmanager
def shell(house: House) -> Iterator[Terminal]:
    """Alice's, in a container that runs."""
    with house.server.spawn_pty("container-exec", "thesis", "--", "sh", user="alice") as terminal:
        goes_on(terminal)
        yield terminal
        goes_on(terminal)
        terminal.send("exit 7\n")
        assert terminal.wait() == 7


def goes_on(terminal: Terminal) -> None:
    """What is typed is done, now."""
    word = f"{time.monotonic_ns()}"
    terminal.send(f"echo be''gun-{word}\n")
    terminal.expect(f"begun-{word}", 5)


def hold_is_over(house: House) -> None:
    """Bob's; his slot should go back, and a second later a daemon with a disk had seen to it."""
    end = house.of("bob", "his")["until"]
    until("his hold is over", lambda: time.time() > end + 1, 20)


def reads_go_on(house: House) -> None:
    began = time.monotonic()
    house.list("alice")
    house.slots()
    house.notices()
    assert time.monotonic() - began < 3 * _READ_S


def nothing_acts(house: House) -> None:
    """Bob's hold was over long ago, and his slot is not touched; nobody gets anything new."""
    before = house.server.exec("sh", "-c", "ls /run/ds01/grant /run/cdi; docker ps -aq").stdout
    said = house.rpc("alice", "container.create", name="more", image="bb", wait_s=2)
    assert said["error"]["data"]["kind"] == "cannot_save", said
    said = house.rpc("alice", "container.stop", name="thesis")
    assert said["error"]["data"]["kind"] == "cannot_save", said
    held = house.of("bob", "his")
    assert (held["status"], len(held["slots"])) == ("stopped", 1)
    assert held["until"] < time.time()
    assert house.server.exec("sh", "-c", "ls /run/ds01/grant /run/cdi; docker ps -aq").stdout == before
    assert "disk" in house.notices()


def stage(house: House) -> None:
    """Alice's runs, bob's is held for another 10 s, carol's runs and will end by itself."""
    house.started("alice", "thesis")
    house.started("carol", "ends", "--cpu-only")
    house.started("bob", "his")
    house.run("bob", "container-stop", "his")


def carols_ends(house: House) -> None:
    """Something happens that has to be saved."""
    house.server.docker("kill", house.engine_name("carol", "ends"))


def recovers(house: House) -> None:
    """By itself, and everything that waited happens now, once."""
    house.wait_for("bob", "his", "parked", 40)
    assert house.of("carol", "ends")["status"] == "stopped"
    assert house.of("alice", "thesis")["status"] == "running"
    house.agrees()
    house.create("alice", "more")


def test_a_disk_that_hangs_for_five_seconds_only_delays(clean: House, disk: Disk) -> None:
    clean.started("alice", "thesis")
    clean.create("bob", "his")
    with shell(clean) as hers:
        disk.freeze(5)
        began = time.monotonic()
        start: Popen[bytes] = clean.server.popen("container-start", "his", user="bob")
        reads_go_on(clean)
        goes_on(hers)
        assert disk.frozen
        out, err = start.communicate(timeout=60)
        assert 3 < time.monotonic() - began < 20
        disk.thawed()
    if start.returncode:
        assert b"goes on when the disk takes it" in err or b"disk" in err, (out, err)
    clean.wait_for("bob", "his", "running", 20)
    clean.agrees()


def test_a_disk_that_hangs_for_a_minute_stops_decisions_and_loses_none(clean: House, disk: Disk) -> None:
    stage(clean)
    with shell(clean) as hers:
        disk.freeze(60)
        carols_ends(clean)
        hold_is_over(clean)
        reads_go_on(clean)
        nothing_acts(clean)
        pid = clean.server.main_pid("ds01d.service")
        while disk.frozen:
            reads_go_on(clean)
            goes_on(hers)
            time.sleep(2)
        assert clean.server.main_pid("ds01d.service") == pid, "the watchdog had no reason"
        disk.thawed()
    recovers(clean)


def test_a_disk_that_is_read_only_stops_decisions_and_loses_none(clean: House, disk: Disk) -> None:
    stage(clean)
    disk.read_only(on=True)
    try:
        carols_ends(clean)
        hold_is_over(clean)
        reads_go_on(clean)
        nothing_acts(clean)
    finally:
        disk.read_only(on=False)
    recovers(clean)


def test_a_full_disk_stops_decisions_and_loses_none(clean: House, disk: Disk) -> None:
    stage(clean)
    disk.fill()
    try:
        # The daemon's reserve takes the first saves; that is what it is for.
        until("the reserve is used up", lambda: "disk_full" in clean.server.journal() or _poke(clean), 20)
        disk.fill()
        carols_ends(clean)
        hold_is_over(clean)
        reads_go_on(clean)
        nothing_acts(clean)
    finally:
        disk.empty()
    recovers(clean)


def _poke(house: House) -> bool:
    """Have something saved."""
    house.rpc("alice", "container.create", name="poke", image="bb", cpu_only=True, wait_s=1)
    house.rpc("alice", "container.remove", name="poke", wait_s=1)
    return False


def test_a_daemon_that_starts_on_a_read_only_disk_answers_reads_and_recovers_by_itself(
    clean: House, disk: Disk
) -> None:
    clean.started("alice", "thesis")
    disk.read_only(on=True)
    try:
        clean.server.kill_daemon()
        clean.server.daemon_up(30)
        assert clean.of("alice", "thesis")["status"] == "running"
        assert clean.slots()["4:0"]["state"] == "in use"
    finally:
        disk.read_only(on=False)
    stop = ("alice", "container-stop", "thesis")
    until("the disk takes it again", lambda: clean.run(*stop, check=False).returncode == 0, 40)
    clean.agrees()
