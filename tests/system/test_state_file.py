"""A state file that is broken, older, newer or gone, under containers that run."""

import json
from collections.abc import Iterator

import pytest

from tests.system.house import House, house
from tests.testbed.server import DAEMON, until

pytestmark = pytest.mark.system

STATE = "/var/lib/ds01/gpu-state.json"


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture
def busy(clean: House) -> Iterator[House]:
    """Alice runs on 4:0, bob holds 4:2; whatever a test did to the state, the next one finds it whole."""
    clean.started("alice", "runs", "--gpu-type", "2g.20gb")
    clean.started("bob", "held", "--gpu-type", "3g.40gb")
    clean.run("bob", "container-stop", "held")
    clean.agrees()
    kept = clean.server.file(STATE)
    yield clean
    try:
        whole = json.loads(clean.server.file(STATE))["schema"] == json.loads(kept)["schema"]
    except (ValueError, OSError):
        whole = False
    if not whole:
        down(clean)
        clean.server.write(STATE, kept, 0o600)
        up(clean)


def down(home: House) -> None:
    home.server.exec("systemctl", "stop", DAEMON)


def up(home: House) -> None:
    home.server.exec("systemctl", "start", DAEMON)
    home.server.daemon_up()


def broken(home: House, *paths: str) -> None:
    """As a disk leaves it that lied about what it had written: the right length, zeros at the end."""
    for path in paths:
        home.server.exec(
            "sh", "-c", f'n=$(($(stat -c %s {path}) / 2)); truncate -s "$n" {path}; truncate -s +"$n" {path}'
        )


def lineage(home: House) -> str:
    return home.picture().lineage


def test_a_broken_file_falls_back_to_the_copy_under_a_new_lineage_and_what_runs_goes_on(busy: House) -> None:
    before, pid = lineage(busy), busy.inspect("alice", "runs")["State"]["Pid"]
    down(busy)
    broken(busy, STATE)
    up(busy)

    picture = busy.agrees()
    assert picture.lineage != before
    assert busy.inspect("alice", "runs")["State"]["Pid"] == pid
    assert busy.of("alice", "runs")["slots"] == ["4:0"]
    assert busy.of("bob", "held")["slots"] == ["4:2"]
    assert all(c["generation"].startswith(picture.lineage) for c in picture.containers.values())
    busy.run("bob", "container-start", "held")


@pytest.mark.parametrize("saves", ["create", "start", "stop"])
def test_what_was_done_after_the_copy_is_found_again_or_blocks_its_slots(clean: House, saves: str) -> None:
    """The copy is put back as it was before one step of carol's; whatever she has now must not be given away."""
    clean.started("alice", "runs", "--gpu-type", "2g.20gb")
    steps = [
        ("container-create", "new", "bb", "--gpu-type", "3g.40gb"),
        ("container-start", "new"),
        ("container-stop", "new"),
    ]
    wanted = ["create", "start", "stop"].index(saves)
    for step in steps[:wanted]:
        clean.run("carol", *step)
    clean.server.exec("cp", STATE, f"{STATE}.older")
    clean.run("carol", *steps[wanted])
    down(clean)
    clean.server.exec("sh", "-c", f"mv {STATE}.older {STATE}.1; echo rubbish >{STATE}")
    up(clean)

    if saves == "create":
        # Nobody remembers it: its slot is proved unused first.
        clean.wait_for_free("4:2", 20)
        clean.server.docker("rm", clean.engine_name("carol", "new"), check=False)
        return
    clean.agrees()
    assert clean.of("carol", "new")["slots"] == ["4:2"]
    assert clean.of("carol", "new")["status"] == ("running" if saves == "start" else "stopped")


def test_when_neither_copy_loads_reads_are_answered_and_nothing_is_changed(busy: House) -> None:
    kept = busy.server.file(STATE)
    pid = busy.inspect("alice", "runs")["State"]["Pid"]
    down(busy)
    broken(busy, STATE, f"{STATE}.1")
    up(busy)

    assert "the saved state cannot be read" in busy.notices()
    assert "restored a backup" in busy.notices()
    said = busy.refused("carol", "container-create", "new", "bb", code=75)
    assert "state" in said
    busy.run("alice", "container-list")
    assert busy.inspect("alice", "runs")["State"]["Pid"] == pid

    # A backup is put back.
    down(busy)
    busy.server.write(STATE, kept, 0o600)
    up(busy)
    busy.agrees()
    assert busy.of("alice", "runs")["status"] == "running"


def test_a_file_of_a_newer_schema_is_not_touched_and_the_daemon_says_why_it_does_not_start(busy: House) -> None:
    down(busy)
    kept = busy.server.file(STATE)
    newer = json.dumps(json.loads(kept) | {"schema": 99})
    busy.server.write(STATE, newer, 0o600)
    busy.server.exec("systemctl", "start", DAEMON, check=False)

    until("it gave up", lambda: busy.server.exec("systemctl", "is-failed", DAEMON, check=False).returncode == 0, 10)
    shown = busy.server.exec("systemctl", "show", "--property", "ExecMainStatus", "--value", DAEMON)
    assert shown.stdout.strip() == "78"
    words = busy.said()
    assert "has schema 99, this version of ds01d knows schemas up to" in words
    assert "install the version that wrote it" in words
    assert busy.server.file(STATE) == newer

    busy.server.write(STATE, kept, 0o600)
    busy.server.exec("systemctl", "reset-failed", DAEMON)
    busy.server.exec("systemctl", "restart", "ds01d.socket", "ds01d-fd.socket")
    up(busy)
    busy.agrees()


def test_without_any_file_what_runs_keeps_its_slot_from_everybody(busy: House) -> None:
    pid = busy.inspect("alice", "runs")["State"]["Pid"]
    down(busy)
    kept = busy.server.file(STATE)
    busy.server.exec("rm", STATE, f"{STATE}.1")
    up(busy)

    assert busy.inspect("alice", "runs")["State"]["Pid"] == pid
    assert busy.slots()["4:0"]["state"] != "free"
    busy.create("carol", "new", "--gpu-type", "2g.20gb")
    assert busy.of("carol", "new")["slots"] == ["4:1"]
    busy.run("carol", "container-cleanup", "new", "--yes")

    down(busy)
    busy.server.write(STATE, kept, 0o600)
    up(busy)


def test_the_state_is_roots_alone(busy: House) -> None:
    mode = busy.server.exec("stat", "--format", "%a %U", STATE, f"{STATE}.1").stdout
    assert mode == "600 root\n600 root\n"
