"""What matters most of a container's life, on the engines that other tests do not run on, and over their deaths."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.soak.run import place
from tests.system.house import POLICY, House
from tests.testbed.server import until

pytestmark = pytest.mark.system


#: 26.1 without live-restore is everywhere else.
_ENGINES = {"26.1-live-restore": ("trixie", True), "28.5": ("engine28", False)}
_EVERY_ENGINE = {**_ENGINES, "28.5-live-restore": ("engine28", True)}


@pytest.fixture(scope="module", params=[*_ENGINES.values()], ids=[*_ENGINES])
def home(request: pytest.FixtureRequest) -> Iterator[House]:
    image, live_restore = request.param
    with place(image=image, live_restore=live_restore, policy=POLICY) as house:
        yield house


@contextmanager
def unread_shell(house: House) -> Iterator[None]:
    """A command in alice's container that writes without end, and a client that reads none of it."""
    with house.server.popen("container-exec", "thesis", "--", "yes", "0123456789" * 8, user="alice") as mute:
        assert mute.stdout is not None
        mute.stdout.read(1)
        house.server.stuck("yes")
        try:
            yield
        finally:
            house.server.signal(mute, signal.SIGKILL)


# ── permissions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_raw_start_works_inside_the_hold_and_not_outside(clean: House) -> None:
    clean.started("alice", "thesis", "--gpu-type", "full")
    name = clean.engine_name("alice", "thesis")
    clean.server.docker("stop", "--time", "1", name)
    clean.wait_for("alice", "thesis", "stopped")
    clean.server.docker("start", name)
    clean.wait_for("alice", "thesis", "running")
    assert clean.devices("alice", "thesis") == {"/dev/nvidia0"}

    clean.run("alice", "container-stop", "thesis", "--release")
    refused = clean.server.docker("start", name, check=False)

    assert refused.returncode != 0
    assert clean.of("alice", "thesis")["status"] == "parked"
    assert clean.slots()["0"]["state"] == "free"


def test_slots_that_change_hands_at_once_are_never_had_by_both(clean: House) -> None:
    cards = set()
    for user in ("alice", "bob", "carol", "alice"):
        clean.started(user, "mine", "--gpu-type", "3g.40gb")
        cards.add(clean.of(user, "mine")["slots"][0])
        clean.agrees()
        clean.run(user, "container-stop", "mine", "--release")
        clean.run(user, "container-cleanup", "mine", "--yes")
    assert cards == {"4:2"}


def test_a_borrowed_name_is_refused_by_the_guard(clean: House) -> None:
    clean.started("alice", "thesis")
    (key,) = clean.picture().grants
    done = clean.server.docker(
        "run", "-d", "--name", "thief", "--device", f"ds01/gpu={key}", "bb", "sleep", check=False
    )
    clean.server.docker("rm", "-f", "thief", check=False)

    assert done.returncode != 0
    assert "belongs to another container" in done.stderr


# ── shells ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shell_outlives_the_daemon_three_times(clean: House) -> None:
    clean.started("alice", "thesis")
    with clean.server.spawn_pty("container-exec", "thesis", "--", "sh", user="alice") as shell:
        shell.send("echo be''gun\n")
        shell.expect("begun")
        for number in range(3):
            clean.server.kill_daemon()
            shell.send(f"echo still-$(({number} + 40))\n")
            shell.expect(f"still-4{number}")
            clean.server.daemon_up()
        shell.send("exit 3\n")
        assert shell.wait() == 3


@pytest.mark.parametrize("killed", [False, True], ids=["", "with the daemon killed"])
def test_a_client_that_never_reads_delays_neither_stop_nor_die_nor_release(clean: House, killed: bool) -> None:
    clean.started("alice", "thesis")
    with unread_shell(clean):
        if killed:
            clean.server.kill_daemon()
            clean.server.daemon_up()
        began = time.monotonic()
        clean.run("alice", "container-stop", "thesis", "--release")

    assert time.monotonic() - began < 12, "SIGTERM's grace is 3 s, and two more until its shells are cut"
    assert clean.of("alice", "thesis")["slots"] == []
    assert clean.slots()["4:0"]["state"] == "free"


@pytest.mark.parametrize("killed", [False, True], ids=["", "with the daemon killed"])
def test_a_client_that_never_reads_hides_no_end_from_the_daemon(clean: House, killed: bool) -> None:
    clean.started("alice", "thesis")
    with unread_shell(clean):
        if killed:
            clean.server.kill_daemon()
        clean.server.exec("kill", "-KILL", clean.server.init_of(clean.engine_name("alice", "thesis")))
        clean.wait_for("alice", "thesis", "stopped", 15)


# ── engines and machines that die ────────────────────────────────────────────────────────────────────────────────────

on_every_engine = pytest.mark.parametrize(
    "home", [*_EVERY_ENGINE.values()], ids=[*_EVERY_ENGINE], indirect=True, scope="module"
)


@on_every_engine
def test_an_engine_that_is_killed_loses_and_doubles_nothing(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.create("bob", "his", "--gpu-type", "full")
    clean.server.kill_dockerd()

    # What ran runs on, or again.
    clean.wait_for("alice", "thesis", "running", 40)
    assert clean.of("bob", "his")["status"] == "created"
    clean.agrees()
    clean.run("bob", "container-start", "his")
    assert clean.devices("bob", "his") == {"/dev/nvidia0"}


@on_every_engine
@pytest.mark.parametrize("hard", [False, True], ids=["orderly", "power-cut"])
def test_after_a_reboot_what_ran_runs_again_on_its_own_slot(clean: House, hard: bool) -> None:
    before = clean.started("alice", "thesis", "--gpu-type", "full")
    clean.create("bob", "his", "--gpu-type", "full")
    clean.server.reboot(hard=hard)
    clean.server.daemon_up(60)
    clean.server.engine_up()

    clean.wait_for("alice", "thesis", "running", 40)
    assert clean.of("alice", "thesis")["slots"] == before["slots"]
    assert clean.of("bob", "his")["status"] == "created"
    clean.agrees()


@pytest.mark.parametrize("home", [_ENGINES["28.5"]], ids=["28.5"], indirect=True, scope="module")
def test_one_that_does_not_answer_proves_nothing(clean: House) -> None:
    clean.started("alice", "thesis")
    engine = clean.server.main_pid("docker.service")
    clean.server.exec("kill", "-STOP", str(engine))
    try:
        until("it is noticed", lambda: "the engine does not answer" in clean.notices(), 60)
        assert clean.of("alice", "thesis")["slots"] == ["4:0"]
    finally:
        clean.server.exec("kill", "-CONT", str(engine))
    clean.agrees()
