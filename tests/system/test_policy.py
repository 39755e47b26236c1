"""The policy in force: per group, per person, field by field; a bad file changes nothing but a complaint."""

import json
from collections.abc import Iterator

import pytest

from tests.system.house import House, house
from tests.testbed.server import DAEMON, until

pytestmark = pytest.mark.system

FILE = "/etc/ds01/resource-limits.yaml"
POLICY = """\
defaults:
  max_mig_instances: 1
  max_containers_per_user: 2
groups:
  student: {allow_full_gpu: false}
  lab:
    members: ["@lab"]
    max_mig_instances: 3
    max_gpus_per_container: 2
    pids_limit: 77
    memory: 512M
    memory_swap: 512M
user_overrides:
  bob: {max_mig_instances: 0, reason: has two machines of his own}
policies:
  sigterm_grace: 3s
"""


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house(policy=POLICY) as made:
        yield made


def test_members_of_a_unix_group_have_what_its_group_may_have(clean: House) -> None:
    made = clean.started("alice", "wide", "--gpus", "2")
    assert len(made["slots"]) == 2
    host = clean.inspect("alice", "wide")["HostConfig"]
    assert (host["PidsLimit"], host["Memory"], host["CgroupParent"]) == (77, 512 << 20, "ds01-lab-alice.slice")
    assert "alice holds 2 of 3" in clean.refused("alice", "container-create", "more", "bb", "--gpus", "2", code=1)


def test_who_is_in_no_group_is_in_the_default_one(clean: House) -> None:
    said = clean.refused("carol", "container-create", "full", "bb", "--gpu-type", "full", code=1)
    assert "MIG" in said
    clean.create("carol", "slice")
    assert "carol holds 1 of 1" in clean.refused("carol", "container-create", "second", "bb", code=1)
    clean.create("carol", "notes", "--cpu-only")
    said = clean.refused("carol", "container-create", "third", "bb", "--cpu-only", code=1)
    assert "2 of 2" in said


def test_an_override_changes_one_field_and_leaves_the_others(clean: House) -> None:
    assert "0" in clean.refused("bob", "container-create", "his", "bb", code=1)
    clean.create("bob", "notes", "--cpu-only")
    assert clean.inspect("bob", "notes")["HostConfig"]["PidsLimit"] == 77


def test_a_valid_change_is_in_force_within_two_seconds_by_itself_and_takes_nothing_away(clean: House) -> None:
    clean.create("carol", "slice")
    clean.server.write(FILE, POLICY.replace("max_mig_instances: 1", "max_mig_instances: 0"))
    try:
        ask = ("container-create", "second", "bb", "--dry-run")
        until("it is in force", lambda: "of 0" in clean.run("carol", *ask, check=False).stderr, 3)
        assert clean.of("carol", "slice")["slots"] == ["4:0"]
        clean.run("carol", "container-start", "slice")
    finally:
        clean.policy(POLICY)


def test_a_bad_file_is_refused_with_its_line_and_the_one_before_stays_in_force(clean: House) -> None:
    bad = POLICY.replace("max_gpus_per_container: 2", "max_gpus_per_contaner: 9")
    line = next(n for n, text in enumerate(bad.splitlines(), 1) if "contaner" in text)
    clean.server.write(FILE, bad)
    clean.server.exec("systemctl", "reload", DAEMON)
    try:
        until("it is said", lambda: f"{FILE}:{line}" in clean.notices(), 5)
        assert "max_gpus_per_container" in clean.notices()
        assert len(clean.create("alice", "wide", "--gpus", "2")["slots"]) == 2
        # A restart runs on the last good copy, and says so too.
        clean.server.exec("systemctl", "restart", DAEMON)
        clean.server.daemon_up()
        assert f"{FILE}:{line}" in clean.notices()
        assert "alice holds 2 of 3" in clean.refused("alice", "container-create", "more", "bb", "--gpus", "2", code=1)
    finally:
        clean.server.write(FILE, POLICY)
        clean.server.exec("systemctl", "reload", DAEMON)
    until("nothing is amiss", lambda: FILE not in clean.notices(), 5)


def test_users_see_no_complaints_about_the_file(clean: House) -> None:
    clean.server.write(FILE, POLICY + "nonsense: 1\n")
    clean.server.exec("systemctl", "reload", DAEMON)
    try:
        until("operators see it", lambda: "nonsense" in clean.notices(), 5)
        assert "nonsense" not in clean.run("alice", "ds01ctl", "status").stdout
        assert "nonsense" in clean.run("dana", "ds01ctl", "status").stdout
    finally:
        clean.server.write(FILE, POLICY)
        clean.server.exec("systemctl", "reload", DAEMON)
    until("nothing is amiss", lambda: "nonsense" not in clean.notices(), 5)


def test_the_shares_that_the_status_shows_are_those_of_the_policy(clean: House) -> None:
    clean.create("alice", "thesis")
    share = json.loads(clean.run("alice", "ds01ctl", "status", "--json").stdout)["share"]
    assert (share["group"], share["slots"], share["slots_max"], share["containers_max"]) == ("lab", 1, 3, 2)
