"""A container's life on the installed product: create, start, stop, hold, park, start elsewhere, remove."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.system.house import House, house
from tests.testbed.server import until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        yield made


# ── the plain life ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_created_container_holds_its_slot_for_a_while(clean: House) -> None:
    made = clean.create("alice", "thesis")

    assert (made["status"], made["slots"]) == ("created", ["4:0"])
    assert 1700 < made["until"] - time.time() <= 1800
    assert clean.slots()["4:0"]["state"] == "held"
    there = clean.inspect("alice", "thesis")
    assert there["State"]["Status"] == "created"
    assert there["HostConfig"]["CgroupParent"] == "ds01-student-alice.slice"


def test_a_started_container_has_its_card_its_user_and_its_workspace(clean: House) -> None:
    clean.started("alice", "thesis", "--gpu-type", "full")

    assert clean.of("alice", "thesis")["status"] == "running"
    assert clean.devices("alice", "thesis") == {"/dev/nvidia0"}
    done = clean.run("alice", "container-exec", "thesis", "--", "sh", "-c", "id -u; echo hello >from-inside")
    assert done.stdout == "1001\n"
    assert clean.server.file("/home/alice/workspace/from-inside") == "hello\n"


def test_a_stop_holds_the_slot_and_the_next_start_finds_it_again(clean: House) -> None:
    clean.started("bob", "other", "--gpu-type", "2g.20gb")
    before = clean.started("alice", "thesis")
    clean.run("alice", "container-stop", "thesis")

    held = clean.of("alice", "thesis")
    assert (held["status"], held["slots"]) == ("stopped", before["slots"])
    assert 3500 < held["until"] - time.time() <= 3600

    clean.run("bob", "container-cleanup", "--force", "--yes", "other")
    clean.run("alice", "container-start", "thesis")
    assert clean.of("alice", "thesis")["slots"] == before["slots"]


def test_a_workspace_that_was_mounted_anew_meanwhile_is_the_same_workspace(clean: House) -> None:
    server, place = clean.server, "/home/alice/fast"

    def mount() -> None:
        server.exec("sh", "-c", f"mkdir -p {place} && mount -t tmpfs fast {place} && mkdir -m 777 {place}/work")
        # A box hands mounts on to nobody: the daemon sees those that were there when it began.
        server.exec("systemctl", "restart", "ds01d.service")

    def number() -> str:
        return server.exec("stat", "-c", "%d:%i", f"{place}/work").stdout

    try:
        mount()
        clean.started("alice", "thesis", "-w", f"{place}/work")
        clean.run("alice", "container-stop", "thesis", "--force")
        before = number()
        server.exec("umount", place)
        server.exec("mount", "-t", "tmpfs", "between", "/mnt")  # so that the number is not given out again
        mount()
        assert number().partition(":")[2] == before.partition(":")[2]
        assert number() != before

        clean.run("alice", "container-start", "thesis")
        assert clean.of("alice", "thesis")["slots"] == ["4:0"]
        clean.run("alice", "container-cleanup", "thesis", "--force", "--yes")
    finally:
        server.exec("umount", "--lazy", place, "/mnt", check=False)
        server.exec("systemctl", "restart", "ds01d.service")


def test_a_released_container_is_parked_and_its_slot_is_free_at_once(clean: House) -> None:
    clean.started("alice", "thesis", "--gpu-type", "3g.40gb")
    clean.run("alice", "container-stop", "thesis", "--release")

    parked = clean.of("alice", "thesis")
    assert (parked["status"], parked["slots"]) == ("parked", [])
    assert clean.slots()["4:2"]["state"] == "free"
    assert clean.started("bob", "his", "--gpu-type", "3g.40gb")["slots"] == ["4:2"]


def test_a_parked_container_starts_on_another_card_with_its_files(clean: House) -> None:
    clean.started("alice", "thesis", "--gpu-type", "full")
    clean.run("alice", "container-exec", "thesis", "--", "sh", "-c", "echo installed >/tmp/mark")
    container = clean.of("alice", "thesis")["engine_id"]
    clean.run("alice", "container-stop", "thesis", "--release")
    clean.started("bob", "his", "--gpu-type", "full")
    assert clean.devices("bob", "his") == {"/dev/nvidia0"}

    clean.run("alice", "container-start", "thesis")

    assert clean.of("alice", "thesis")["engine_id"] == container
    assert clean.devices("alice", "thesis") == {"/dev/nvidia1"}
    assert clean.run("alice", "container-exec", "thesis", "--", "cat", "/tmp/mark").stdout == "installed\n"


def test_a_hold_that_is_over_parks_the_container_by_itself(clean: House) -> None:
    kept = clean.server.file("/etc/ds01/resource-limits.yaml")
    clean.policy(kept.replace("gpu_hold_after_stop: 1h", "gpu_hold_after_stop: 1s"))
    try:
        clean.started("alice", "thesis")
        clean.run("alice", "container-stop", "thesis")
        clean.wait_for("alice", "thesis", "parked", 20)
        clean.wait_for_free("4:0")
    finally:
        clean.policy(kept)


def test_a_container_that_ends_by_itself_is_held_from_its_end_on(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.docker("kill", clean.engine_name("alice", "thesis"))

    ended = clean.wait_for("alice", "thesis", "stopped", 3)

    assert ended["exit_code"] == 137
    assert abs(ended["until"] - ended["finished_at"] - 3600) < 1


def test_a_removed_container_leaves_nothing_but_the_workspace(clean: House) -> None:
    clean.started("alice", "thesis")
    assert "container-stop" in clean.refused("alice", "container-cleanup", "thesis", "--yes", code=1)
    clean.run("alice", "container-cleanup", "thesis", "--yes", "--force")

    picture = clean.picture()
    left = (picture.containers, picture.allocations, picture.engine, picture.grants, picture.specs)
    assert left == ({}, {}, {}, {}, {})
    assert clean.server.exec("ls", "/var/lib/ds01/container-metadata").stdout == ""
    assert clean.server.exec("ls", "-d", "/home/alice/workspace").returncode == 0


def test_a_container_without_a_gpu_has_a_permission_of_its_own_and_no_card(clean: House) -> None:
    made = clean.started("alice", "notes", "--cpu-only")

    assert made["slots"] == []
    assert clean.devices("alice", "notes") == set()
    assert len(clean.picture().grants) == 1


def test_two_slots_are_given_together_or_not_at_all(clean: House) -> None:
    made = clean.started("alice", "wide", "--gpus", "2", "--gpu-type", "full")

    assert len(made["slots"]) == 2
    assert len(clean.devices("alice", "wide")) == 2
    clean.started("bob", "wide", "--gpus", "2", "--gpu-type", "full")
    said = clean.refused("carol", "container-create", "wide", "bb", "--gpus", "2", "--gpu-type", "full", code=75)
    assert "alice" in said or "bob" in said
    assert clean.list("carol") == {}


def test_a_request_id_makes_a_retry_the_same_create(clean: House) -> None:
    first = clean.rpc("alice", "container.create", name="thesis", image="bb", request_id="once")
    again = clean.rpc("alice", "container.create", name="thesis", image="bb", request_id="once")

    assert first["result"]["operation"]["id"] == again["result"]["operation"]["id"]
    assert len(clean.list("alice")) == 1


def test_a_caller_who_hangs_up_changes_nothing(clean: House) -> None:
    clean.create("alice", "thesis")

    done = clean.run("alice", "timeout", "--signal", "KILL", "0.08", "container-start", "thesis", check=False)

    assert done.returncode == 137
    clean.wait_for("alice", "thesis", "running")


def test_a_caller_who_does_not_wait_gets_an_operation_to_ask_for(clean: House) -> None:
    clean.create("alice", "thesis")

    asked = clean.rpc("alice", "container.start", name="thesis", wait_s=0)["result"]["operation"]
    assert asked["state"] == "pending"

    ended = clean.rpc("alice", "operation.wait", id=asked["id"], timeout_s=10)["result"]
    assert (ended["state"], ended["outcome"]) == ("done", "started")
    assert "error" in clean.rpc("bob", "operation.get", id=asked["id"])


def test_ds01_run_leaves_nothing_behind_where_asked(clean: House) -> None:
    done = clean.run("alice", "ds01-run", "--rm", "bb", "--", "sh", "-c", "ls /dev/nvidia-caps; exit 3", check=False)

    assert done.returncode == 3, done.stderr
    assert "nvidia-cap" in done.stdout
    until("it is removed", lambda: clean.list("alice") == {}, 5)


# ── the engine's own commands ────────────────────────────────────────────────────────────────────────────────────────


def test_a_raw_start_inside_the_hold_works_and_is_noticed(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.run("alice", "container-stop", "thesis")

    clean.server.docker("start", clean.engine_name("alice", "thesis"))

    clean.wait_for("alice", "thesis", "running", 3)
    assert clean.slots()["4:0"]["state"] == "in use"


def test_a_raw_start_of_a_container_that_was_only_created_works(clean: House) -> None:
    clean.create("alice", "thesis")
    clean.server.docker("start", clean.engine_name("alice", "thesis"))
    clean.wait_for("alice", "thesis", "running", 3)


def test_a_raw_start_of_a_parked_container_is_refused_by_the_engine(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.run("alice", "container-stop", "thesis", "--release")

    done = clean.server.docker("start", clean.engine_name("alice", "thesis"), check=False)

    assert done.returncode != 0
    assert "ds01" in done.stderr
    assert clean.of("alice", "thesis")["status"] == "parked"


def test_a_raw_restart_keeps_the_slot(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.docker("restart", "-t", "1", clean.engine_name("alice", "thesis"))

    picture = clean.agrees()
    (c,) = picture.containers.values()
    assert c["phase"] == "running"
    assert clean.of("alice", "thesis")["slots"] == ["4:0"]


def test_raw_stop_is_a_stop(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.docker("stop", "-t", "1", clean.engine_name("alice", "thesis"))
    assert clean.wait_for("alice", "thesis", "stopped", 3)["slots"] == ["4:0"]


@pytest.mark.parametrize("running", [True, False])
def test_a_raw_removal_frees_the_slot_once_it_is_proved(clean: House, running: bool) -> None:
    clean.create("alice", "thesis")
    if running:
        clean.run("alice", "container-start", "thesis")
    clean.server.docker("rm", "-f", clean.engine_name("alice", "thesis"))

    until("the record is gone", lambda: clean.list("alice") == {}, 5)
    clean.wait_for_free("4:0")


def test_a_paused_container_counts_as_running(clean: House) -> None:
    clean.started("alice", "thesis")
    clean.server.docker("pause", clean.engine_name("alice", "thesis"))
    time.sleep(1.5)  # a listing at least

    assert clean.of("alice", "thesis")["status"] == "running"
    clean.server.docker("unpause", clean.engine_name("alice", "thesis"))


# ── what the guard is for ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stale_generation_is_stopped_by_the_guard(clean: House) -> None:
    clean.create("alice", "thesis")
    (key,) = clean.picture().grants
    old = clean.server.file(f"/run/cdi/ds01-{key}.json")
    clean.run("alice", "container-stop", "thesis", "--release")
    clean.started("bob", "his", "--gpu-type", "2g.20gb")
    assert clean.of("bob", "his")["slots"] == ["4:0"]

    clean.server.write(f"/run/cdi/ds01-{key}.json", old, 0o600)  # as a cache that runs behind would have it
    done = clean.server.docker("start", clean.engine_name("alice", "thesis"), check=False)

    assert done.returncode != 0
    assert "holds no allocation" in done.stderr
    clean.server.exec("rm", f"/run/cdi/ds01-{key}.json")


def test_a_borrowed_cdi_name_is_stopped_by_the_guard_and_its_slot_stays_hers(clean: House) -> None:
    clean.started("alice", "thesis")
    (key,) = clean.picture().grants

    done = clean.server.docker(
        "run", "-d", "--name", "thief", "--device", f"ds01/gpu={key}", "bb", "sleep", check=False
    )

    assert done.returncode != 0
    assert "belongs to another container" in done.stderr
    assert clean.of("alice", "thesis")["status"] == "running"
    clean.server.docker("rm", "thief")


def test_a_workspace_swapped_for_a_symlink_is_stopped_by_the_guard(clean: House) -> None:
    clean.run("alice", "mkdir", "-p", "mine")
    clean.create("alice", "thesis", "--workspace", "mine")
    clean.run("alice", "mv", "mine", "mine.away")
    clean.run("alice", "ln", "-s", "/home/bob", "mine")

    said = clean.refused("alice", "container-start", "thesis", code=1)

    assert "/mine, its /workspace, was replaced by another directory" in said
    assert "container-cleanup thesis" in said
    assert clean.of("alice", "thesis")["status"] == "created"
    clean.run("alice", "rm", "mine")
    clean.run("alice", "mv", "mine.away", "mine")
    clean.run("alice", "container-start", "thesis")


def test_what_happened_is_told_as_a_story(clean: House) -> None:
    clean.started("alice", "saga")
    clean.run("alice", "container-stop", "saga", "--release")

    told = json.loads(clean.server.exec("ds01ctl", "story", "saga", "--json").stdout)
    words = [e["event_type"] for e in told["events"]]
    for word in ("container.created", "container.started", "container.stopped", "gpu.released"):
        assert word in words, words
