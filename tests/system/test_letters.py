"""The daemon dies at random moments of a start and of a release: what it finds, and does (lifecycle.md, section 2)."""

import json
import random
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.system.house import House, house

pytestmark = pytest.mark.system

ROUNDS = 4
#: A start of a parked container takes about 0.3 s in a box, a release 0.1 s.
START_S, RELEASE_S = 0.35, 0.12


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        yield made


def killed_during(home: House, seconds: float, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    """Alice's command, with the daemon killed so many seconds after it was sent."""
    pid = home.server.main_pid("ds01d.service")
    asked = home.server.popen(
        "sh", "-c", f'(sleep {seconds:.3f}; kill -KILL {pid}) & runuser -u alice -- "$@"', "sh", *argv
    )
    out, err = asked.communicate(timeout=60)
    home.server.daemon_up()
    return subprocess.CompletedProcess(argv, asked.returncode, out, err)


def seeds() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"SEED={seed}")
    return random.Random(seed)


def test_a_start_during_which_the_daemon_dies_is_done_or_never_was(clean: House) -> None:
    """A: it never was. B to H: it runs, with a slot that nobody else has."""
    chance, ends = seeds(), set()
    clean.create("alice", "thesis", "--gpu-type", "3g.40gb")
    for _ in range(ROUNDS):
        clean.run("alice", "container-stop", "thesis", "--release", "--force")
        done = killed_during(clean, chance.uniform(0, START_S), "container-start", "thesis")

        picture = clean.agrees()
        (c,) = picture.containers.values()
        a = picture.allocation_of(c["id"])
        assert c["phase"] == "running" or (c["phase"] == "stopped" and a is None), (c, a, done)
        if done.returncode == 0:
            assert c["phase"] == "running", (c, done)
        ends.add(c["phase"])
    assert "running" in ends


def test_a_release_during_which_the_daemon_dies_is_done_or_never_was(clean: House) -> None:
    """K: decided again when it is asked again. L to P: proved again and freed. Q: free."""
    chance = seeds()
    for n in range(ROUNDS):
        if n == 0:
            clean.create("alice", "thesis", "--gpu-type", "3g.40gb")
        else:
            clean.run("alice", "container-start", "thesis")
            clean.run("alice", "container-stop", "thesis", "--force")
        done = killed_during(clean, chance.uniform(0, RELEASE_S), "container-stop", "thesis", "--release")

        picture = clean.agrees()
        (c,) = picture.containers.values()
        a = picture.allocation_of(c["id"])
        assert c["phase"] == "stopped"
        assert a is None or a["claim"] == "held", (a, done)
        if done.returncode == 0:
            assert a is None, (a, done)


def test_a_create_during_which_the_daemon_dies_is_made_once_or_not_at_all(clean: House) -> None:
    chance = seeds()
    for n in range(ROUNDS):
        name = f"c{n}"
        done = killed_during(clean, chance.uniform(0, 0.25), "container-create", name, "bb", "--gpu-type", "3g.40gb")

        picture = clean.agrees()
        assert len(picture.engine) == len(picture.containers) <= 1, (picture.engine.keys(), done)
        if done.returncode == 0:
            assert clean.of("alice", name)["slots"] == ["4:2"]
        if picture.containers:
            clean.run("alice", "container-cleanup", name, "--yes")


def test_a_removal_during_which_the_daemon_dies_is_done_or_can_be_asked_again(clean: House) -> None:
    chance = seeds()
    for n in range(ROUNDS // 2):
        clean.started("alice", f"c{n}")
        killed_during(clean, chance.uniform(0, 0.5), "container-cleanup", f"c{n}", "--yes", "--force")
        clean.agrees()
        if clean.list("alice"):
            clean.run("alice", "container-cleanup", f"c{n}", "--yes", "--force")
        assert clean.slots()["4:0"]["state"] == "free"


def test_a_retry_with_the_same_request_id_after_a_death_is_the_same_request(clean: House) -> None:
    chance = seeds()
    for n in range(ROUNDS // 2):
        body = {"name": f"c{n}", "image": "bb", "request_id": f"r{n}", "wait_s": 0}
        pid = clean.server.main_pid("ds01d.service")
        killer = clean.server.popen("sh", "-c", f"sleep {chance.uniform(0, 0.2):.3f}; kill -KILL {pid}")
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "container.create", "params": body})
        head = ("-H", "Content-Type: application/json", "-d", text)
        curl = ("curl", "-s", "--unix-socket", "/run/ds01/ds01d.sock", "http://ds01/rpc", *head)
        clean.run("alice", *curl, check=False)
        killer.communicate(timeout=10)
        time.sleep(0.05)
        clean.server.daemon_up()
        again = clean.rpc("alice", "container.create", name=f"c{n}", image="bb", request_id=f"r{n}")

        assert "result" in again, again
        assert len(clean.agrees().engine) == 1
        clean.run("alice", "container-cleanup", f"c{n}", "--yes")
