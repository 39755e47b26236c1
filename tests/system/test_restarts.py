"""The machine, the engine and the daemon go down and come back under running containers."""

import time
from collections.abc import Iterator

import pytest

from tests.system.house import POLICY, House, house
from tests.testbed.server import DAEMON, until

pytestmark = pytest.mark.system

NOT_AGAIN = POLICY + "containers: {restart_after_boot: false}\n"


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture
def three(clean: House) -> Iterator[House]:
    """One runs, one is held, one is parked."""
    clean.started("bob", "held", "--gpu-type", "3g.40gb")
    clean.run("bob", "container-stop", "held")
    clean.started("carol", "parked", "--gpu-type", "full")
    clean.run("carol", "container-stop", "parked", "--release")
    clean.started("alice", "running", "--gpu-type", "2g.20gb")
    yield clean
    if "restart_after_boot" in clean.server.file("/etc/ds01/resource-limits.yaml"):
        clean.policy(POLICY)


def as_before(home: House, running: str) -> None:
    """The one that ran is as told, with its slot; the others are as they were."""
    home.wait_for("alice", "running", running, 30)
    home.agrees()
    assert home.of("alice", "running")["slots"] == ["4:0"]
    held = home.of("bob", "held")
    assert (held["status"], held["slots"]) == ("stopped", ["4:2"])
    assert home.of("carol", "parked")["status"] == "parked"


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hard", [False, True], ids=["in order", "power cut"])
def test_after_a_reboot_what_ran_runs_again_and_the_rest_is_as_it_was(three: House, hard: bool) -> None:
    three.server.reboot(hard=hard)
    three.server.daemon_up()
    as_before(three, "running")


def test_after_a_reboot_nothing_runs_again_where_the_policy_says_so_and_holds_go_on(three: House) -> None:
    three.policy(NOT_AGAIN)
    before = three.of("bob", "held")["until"]
    three.server.reboot()
    three.server.daemon_up()
    as_before(three, "stopped")
    assert three.of("bob", "held")["until"] == before
    three.run("bob", "container-start", "held")
    assert three.devices("bob", "held") == {"/dev/nvidia4"}


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_restart_of_the_engine_what_ran_runs_again(three: House) -> None:
    three.server.restart_dockerd()
    as_before(three, "running")


def test_after_a_restart_of_the_engine_nothing_runs_again_where_the_policy_says_so(three: House) -> None:
    three.policy(NOT_AGAIN)
    three.server.restart_dockerd()
    as_before(three, "stopped")


def test_after_an_engine_that_was_killed_what_ran_runs_again(three: House) -> None:
    three.server.kill_dockerd()
    as_before(three, "running")


def test_an_engine_that_goes_while_the_daemon_is_away_is_seen_when_it_comes_back(three: House) -> None:
    three.server.exec("systemctl", "stop", DAEMON, "ds01d.socket", "ds01d-fd.socket")
    three.server.restart_dockerd()
    three.server.exec("systemctl", "start", "ds01d.socket", "ds01d-fd.socket", DAEMON)
    as_before(three, "running")


def test_while_the_engine_is_away_nothing_is_concluded_and_everything_is_answered(three: House) -> None:
    three.server.exec("systemctl", "stop", "docker.socket", "docker.service")
    try:
        time.sleep(2)
        assert three.of("alice", "running")["status"] == "running"
        assert three.slots()["4:0"]["state"] == "in use"
        assert "engine" in three.notices()
        said = three.refused("carol", "container-create", "new", "bb", code=75)
        assert "engine" in said
    finally:
        three.server.exec("systemctl", "start", "docker.socket", "docker.service")
        three.server.engine_up()
    as_before(three, "running")
    until("nothing is amiss", lambda: "engine" not in three.notices(), 10)


def test_a_start_whose_engine_is_killed_is_told_or_done(clean: House) -> None:
    clean.create("alice", "thesis")
    for _ in range(2):
        asked = clean.server.popen("container-start", "thesis", user="alice")
        time.sleep(0.12)
        clean.server.kill_dockerd()
        out, err = asked.communicate(timeout=90)

        clean.agrees()
        if asked.returncode == 0:
            assert clean.of("alice", "thesis")["status"] == "running", (out, err)
        clean.run("alice", "container-stop", "thesis", "--force", check=False)
        clean.agrees()


# ── the daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_daemon_is_back_at_once_and_has_touched_nothing(three: House) -> None:
    pid = three.inspect("alice", "running")["State"]["Pid"]
    three.server.kill_daemon()
    as_before(three, "running")
    assert three.inspect("alice", "running")["State"]["Pid"] == pid


def test_a_daemon_that_comes_back_during_a_long_stop_answers_at_once(three: House) -> None:
    three.policy(POLICY.replace("sigterm_grace: 3s", "sigterm_grace: 1m"))
    try:
        name = three.engine_name("alice", "running")
        three.server.docker("exec", "--detach", name, "sh", "-c", "trap '' TERM; echo >/tmp/deaf; exec sleep 600")
        deaf = ("exec", name, "test", "-e", "/tmp/deaf")
        until("it is deaf", lambda: three.server.docker(*deaf, check=False).returncode == 0, 10)
        asked = three.server.popen("container-stop", "running", user="alice")
        three.wait_for("alice", "running", "stopping")

        three.server.kill_daemon()
        began = time.monotonic()
        assert three.of("alice", "running")["status"] == "stopping"
        assert time.monotonic() - began < 10

        three.run("alice", "container-stop", "running", "--force")
        asked.communicate(timeout=30)
    finally:
        three.policy(POLICY)


def test_requests_wait_in_line_while_the_daemon_restarts(three: House) -> None:
    asked = [three.server.popen("container-list", user="alice") for _ in range(3)]
    three.server.exec("systemctl", "restart", "--no-block", DAEMON)
    asked += [three.server.popen("container-list", user="alice") for _ in range(10)]
    for process in asked:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, b"running" in out) == (0, True), err


def test_what_happened_while_the_daemon_was_away_is_found(three: House) -> None:
    three.server.exec("systemctl", "stop", DAEMON, "ds01d.socket", "ds01d-fd.socket")
    three.server.docker("kill", three.engine_name("alice", "running"))
    three.server.docker("start", three.engine_name("bob", "held"))
    three.server.docker("rm", three.engine_name("carol", "parked"))
    three.server.exec("systemctl", "start", "ds01d.socket", "ds01d-fd.socket", DAEMON)

    three.agrees()
    assert three.of("alice", "running")["status"] == "stopped"
    assert three.of("bob", "held")["status"] == "running"
    assert three.list("carol") == {}


def test_a_second_daemon_is_refused(clean: House) -> None:
    before = clean.server.main_pid(DAEMON)
    env = {"PYTHONPATH": "/usr/lib/ds01/python"}
    done = clean.server.exec("python3", "-s", "-P", "-m", "ds01d", check=False, own_cgroup=True, env=env)

    assert done.returncode == 78
    assert "another ds01d" in done.stdout + done.stderr, done
    assert clean.server.main_pid(DAEMON) == before
    assert clean.list("alice") == {}
