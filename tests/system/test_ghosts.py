"""An engine that dies in the middle of a start leaves processes behind: they are found and ended, the slot is freed."""

import re
from collections.abc import Iterator
from subprocess import CompletedProcess, Popen
from threading import Timer

import pytest

from tests.soak.run import place
from tests.system.house import POLICY, House
from tests.testbed.server import until

pytestmark = pytest.mark.system

_GUARD = "/usr/lib/ds01/cdi-guard"
#: Hangs in createRuntime as long as the file is there; the process that is to become the container waits in its cgroup.
_HANGING = f"""#!/bin/sh
if [ -e /run/hang ]; then touch /run/hangs; fi
while [ -e /run/hang ]; do sleep 0.05; done
exec {_GUARD}.real "$@"
"""
#: Kills the engine when the container's own program first shows in its cgroup; the start is not answered by then.
_AMBUSH = """
import os, sys, time
cgroup, engine = sys.argv[1:]
procs = f"/sys/fs/cgroup/pids/{cgroup}/cgroup.procs"
end = time.monotonic() + 20
print("ready", flush=True)
while time.monotonic() < end:
    try:
        for pid in open(procs).read().split():
            command = open(f"/proc/{pid}/cmdline", "rb").read()
            if command and b"runc" not in command and b"/proc/self" not in command:
                os.kill(int(engine), 9)
                sys.exit(0)
    except OSError:
        pass
sys.exit(1)
"""


@pytest.fixture(scope="module", params=[("trixie", False), ("engine28", True)], ids=["26.1", "28.5-live-restore"])
def home(request: pytest.FixtureRequest) -> Iterator[House]:
    image, live_restore = request.param
    with place(image=image, live_restore=live_restore, policy=POLICY) as house:
        house.server.exec("mv", _GUARD, f"{_GUARD}.real")
        house.server.write(_GUARD, _HANGING, 0o755)
        house.server.exec("chmod", "755", _GUARD)
        yield house


def ghosts(house: House) -> int:
    """How often the operators were told of one."""
    return len(re.findall(r"runs on while the engine says", house.server.journal()))


def released(house: House) -> int:
    """How often slots came free."""
    return house.server.journal().count('"gpu.released"')


def outcome(start: "Popen[bytes]") -> "CompletedProcess[str]":
    """What came of a start that was under way."""
    out, err = start.communicate(timeout=90)
    return CompletedProcess(start.args, start.returncode, out.decode(), err.decode())


def starts_again(house: House, done: "CompletedProcess[str]") -> None:
    """It was tried again until it ran, or what was said names the cure, and that helps."""
    if done.returncode == 0:
        # An engine that dies just after it has said so ends it when it comes back, and it is started again.
        until("it runs", lambda: house.of("alice", "thesis")["status"] == "running", 60)
        return
    if done.returncode == 75:  # the engine took long to come back, and it goes on
        until("it is settled", lambda: house.of("alice", "thesis")["status"] in {"running", "stopped"}, 60)
        return
    # An engine that does know of it ends it when it comes back, with live-restore off.
    ended = "started and ended at once" in done.stderr or "restarted in the middle of its start" in done.stderr
    assert ended or "systemctl restart containerd" in done.stderr, done.stderr
    house.wait_for("alice", "thesis", "stopped", 20)
    if house.run("alice", "container-start", "thesis", check=False).returncode:
        house.server.exec("systemctl", "restart", "containerd", "docker")
        house.server.engine_up()
        house.run("alice", "container-start", "thesis")


def gives_its_slot_back_once(house: House) -> None:
    """And somebody else may have it then."""
    slots = house.of("alice", "thesis")["slots"]
    before = released(house)
    house.run("alice", "container-stop", "thesis", "--release")
    until("it is free", lambda: house.of("alice", "thesis")["slots"] == [], 10)
    assert released(house) == before + 1
    assert house.started("bob", "his")["slots"] == slots


@pytest.mark.parametrize("daemon_too", [False, True], ids=["engine", "engine-and-daemon"])
def test_what_waits_behind_a_hanging_hook_is_ended_with_its_engine(clean: House, daemon_too: bool) -> None:
    server = clean.server
    clean.create("alice", "thesis")
    server.exec("sh", "-c", "rm -f /run/hangs; touch /run/hang")
    start = server.popen("container-start", "thesis", user="alice")
    until("the hook hangs", lambda: server.exec("test", "-e", "/run/hangs", check=False).returncode == 0, 20)
    before = ghosts(clean)

    # The hook goes on by itself after a while, or inspect would wait for it behind the new engine as well.
    thaw = Timer(3, lambda: server.exec("rm", "-f", "/run/hang"))
    thaw.start()
    if daemon_too:
        server.kill_daemon()
    server.kill_dockerd()
    server.daemon_up(60)
    thaw.join()
    done = outcome(start)

    starts_again(clean, done)
    clean.agrees()
    assert ghosts(clean) > before
    gives_its_slot_back_once(clean)


def test_what_runs_though_its_engine_never_learnt_of_it_is_ended(clean: House) -> None:
    server = clean.server
    before, tries = ghosts(clean), 0
    while ghosts(clean) == before:
        tries += 1
        assert tries <= 12, "no ghost came of twelve tries"
        clean.clear()
        clean.create("alice", "thesis")
        engine_id = clean.of("alice", "thesis")["engine_id"]
        cgroup = f"ds01.slice/ds01-student.slice/ds01-student-alice.slice/docker-{engine_id}.scope"
        ambush = server.popen("python3", "-c", _AMBUSH, cgroup, str(server.main_pid("docker.service")))
        assert ambush.stdout is not None
        ambush.stdout.readline()
        done = clean.run("alice", "container-start", "thesis", check=False, timeout=120)
        ambush.communicate(timeout=30)
        server.engine_up()
        starts_again(clean, done)
        clean.agrees()
    gives_its_slot_back_once(clean)
