"""The files of a permission on a real disk: what they say, in which order they change, and what a crash leaves."""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ds01d.adapters.cdi_spec import Malformed, read_grant
from ds01d.adapters.cdi_vendor import DeviceMissing
from ds01d.model.ids import SlotId
from ds01d.model.permission import MountProof, PermissionSeen
from tests.adapters.machine import CARD0, CARD1, CONTAINER, CONTROL, SLICE0, SLICE1, Machine, installed, permission

pytestmark = pytest.mark.root

WORKSPACE = MountProof(dev=65024, inode=1234, target="/workspace")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return installed(tmp_path)


def spec_of(machine: Machine, name: str = "k1") -> Any:  # noqa: ANN401 - a document is looked into
    return json.loads((machine.specs / f"ds01-{name}.json").read_text())


def stamps(machine: Machine) -> dict[str, tuple[int, int]]:
    """Every file by inode and time of change: equal means that nothing was written."""
    files = [*machine.grants.iterdir(), *machine.specs.iterdir()]
    return {file.name: (file.stat().st_ino, file.stat().st_ctime_ns) for file in files}


def modes(*directories: Path) -> set[int]:
    return {file.stat().st_mode & 0o7777 for directory in directories for file in directory.iterdir()}


# ── what the files say ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_says_container_generation_slots_and_mounts(machine: Machine) -> None:
    data = MountProof(dev=2049, inode=99, target="/data/my sets")
    machine.permissions().permit(permission(CARD0, SLICE0, mounts=(WORKSPACE, data)))

    text = (machine.grants / "k1").read_text()

    assert text == (f"{CONTAINER} 8f3a.1 {CARD0.name},{SLICE0.name}\n65024:1234 /workspace\n2049:99 /data/my sets\n")
    assert read_grant(text.encode()).mounts == (WORKSPACE, data)


def test_a_spec_gives_exactly_the_card_and_the_control_nodes_to_the_user_alone(machine: Machine) -> None:
    machine.permissions().permit(permission(CARD1))

    spec = spec_of(machine)
    (device,) = spec["devices"]
    nodes = device["containerEdits"]["deviceNodes"]

    assert (spec["cdiVersion"], spec["kind"], device["name"]) == ("0.5.0", "ds01/gpu", "k1")
    assert [node["path"] for node in nodes] == ["/dev/nvidia1", *(f"/dev/{name}" for name in CONTROL)]
    assert nodes[0] == {
        "path": "/dev/nvidia1",
        "hostPath": f"{machine.places.dev}/nvidia1",
        "permissions": "rw",
        "fileMode": 384,
        "uid": 1001,
        "gid": 1002,
    }
    assert {(node["uid"], node["gid"], node["fileMode"], node["permissions"]) for node in nodes} == {
        (1001, 1002, 384, "rw")
    }


def test_a_spec_carries_the_guard_with_the_slots_in_its_own_environment(machine: Machine) -> None:
    machine.permissions().permit(permission(CARD0))

    assert spec_of(machine)["devices"][0]["containerEdits"]["hooks"] == [
        {
            "hookName": "createRuntime",
            "path": "/usr/lib/ds01/cdi-guard",
            "args": ["cdi-guard", "k1", CONTAINER, "8f3a.1"],
            "env": [f"DS01_SLOTS={CARD0.name}"],
            "timeout": 10,
        }
    ]


def test_a_container_without_a_gpu_gets_the_guard_alone(machine: Machine) -> None:
    machine.permissions().permit(permission(mounts=(WORKSPACE,)))

    edits = spec_of(machine)["devices"][0]["containerEdits"]

    assert list(edits) == ["hooks"]
    assert (machine.grants / "k1").read_text().startswith(f"{CONTAINER} 8f3a.1 -\n")


def test_two_slices_of_one_card_name_its_node_once_and_two_capabilities_each(machine: Machine) -> None:
    machine.permissions().permit(permission(SLICE0, SLICE1))

    paths = [node["path"] for node in spec_of(machine)["devices"][0]["containerEdits"]["deviceNodes"]]

    caps = [path for path in paths if "caps" in path]
    assert paths.count("/dev/nvidia4") == 1
    assert len(caps) == len(set(caps)) == 4
    assert len(paths) == 1 + 4 + len(CONTROL)


def test_a_spec_of_one_slice_stays_small(machine: Machine) -> None:
    machine.permissions().permit(permission(SLICE0))
    text = (machine.specs / "ds01-k1.json").read_text()
    assert len(text.replace(str(machine.places.dev), "/dev")) < 1500


def test_the_drivers_spec_has_mounts_hooks_and_environment_and_no_node(machine: Machine) -> None:
    assert machine.permissions().write_driver_spec()

    spec = spec_of(machine, "driver")
    (device,) = spec["devices"]
    edits = device["containerEdits"]
    assert (spec["cdiVersion"], spec["kind"], device["name"]) == ("0.5.0", "ds01/driver", "all")
    assert sorted(edits) == ["env", "hooks", "mounts"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in edits["env"]
    assert [hook["args"][1] for hook in edits["hooks"]] == [
        "create-symlinks",
        "enable-cuda-compat",
        "update-ldcache",
        "disable-device-node-modification",
    ]
    assert edits["mounts"][0]["options"] == ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    assert edits["mounts"][0]["containerPath"].startswith("/usr/lib/x86_64-linux-gnu/libcuda.so.")


def test_without_a_vendors_spec_the_drivers_device_can_still_be_asked_for(machine: Machine) -> None:
    machine.places.spec.unlink()
    machine.permissions().write_driver_spec()
    assert spec_of(machine, "driver")["devices"][0]["containerEdits"] == {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}


def test_every_file_is_roots_alone(machine: Machine) -> None:
    before = os.umask(0)
    try:
        machine.permissions().permit(permission(CARD0))
        machine.permissions().write_driver_spec()
    finally:
        os.umask(before)
    assert modes(machine.grants, machine.specs) == {0o600}
    assert machine.grants.stat().st_mode & 0o7777 == 0o700


# ── writing and withdrawing ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_content_is_never_written_again(machine: Machine) -> None:
    permissions = machine.permissions()
    permissions.permit(permission(CARD0, mounts=(WORKSPACE,)))
    permissions.write_driver_spec()
    before = stamps(machine)

    permissions.permit(permission(CARD0, mounts=(WORKSPACE,)))
    again = permissions.write_driver_spec()

    assert not again
    assert stamps(machine) == before


def test_a_file_that_others_may_read_is_written_again(machine: Machine) -> None:
    machine.permissions().permit(permission(CARD0))
    (machine.grants / "k1").chmod(0o644)
    machine.permissions().permit(permission(CARD0))
    assert modes(machine.grants) == {0o600}


def test_another_generation_replaces_both_files(machine: Machine) -> None:
    permissions = machine.permissions()
    permissions.permit(permission(CARD0))
    permissions.permit(permission(CARD1, generation="8f3a.2"))

    (seen,) = permissions.seen()

    assert (seen.generation, seen.slots, seen.trouble) == ("8f3a.2", (CARD1.name,), None)
    assert spec_of(machine)["devices"][0]["containerEdits"]["deviceNodes"][0]["path"] == "/dev/nvidia1"


def test_withdrawing_leaves_nothing_and_can_be_done_again(machine: Machine) -> None:
    permissions = machine.permissions()
    permissions.permit(permission(CARD0))
    permissions.permit(permission(CARD1, key="k2"))

    permissions.withdraw("k1")
    permissions.withdraw("k1")

    assert [seen.key for seen in permissions.seen()] == ["k2"]
    assert sorted(path.name for path in machine.specs.iterdir()) == ["ds01-k2.json"]


def test_withdrawing_what_never_was_is_fine(machine: Machine) -> None:
    machine.permissions().withdraw("k1")
    assert machine.permissions().seen() == ()


def test_a_grant_that_cannot_be_removed_leaves_the_spec_and_says_so(machine: Machine) -> None:
    machine.permissions().permit(permission(CARD0))
    (machine.grants / "k1").unlink()
    (machine.grants / "k1").mkdir()

    with pytest.raises(IsADirectoryError):
        machine.permissions().withdraw("k1")

    assert (machine.specs / "ds01-k1.json").exists()


def test_a_device_that_is_not_there_leaves_nothing_behind(machine: Machine) -> None:
    (machine.places.dev / "nvidia0").unlink()

    with pytest.raises(DeviceMissing, match=r"cannot find the device node .*/nvidia0"):
        machine.permissions().permit(permission(CARD0))

    assert machine.permissions().seen() == ()


@pytest.mark.parametrize("key", ["", "driver", ".", "..", "../k1", "a/b", ".hidden", "k 1", "k\n1", "-k", "k" * 65])
def test_a_key_that_is_no_file_name_of_ours_is_refused(machine: Machine, key: str) -> None:
    with pytest.raises(Malformed):
        machine.permissions().permit(permission(CARD0, key=key))
    with pytest.raises(Malformed):
        machine.permissions().withdraw(key)


@pytest.mark.parametrize("target", ["/two\nlines", "relative", "/nul\0"])
def test_a_mount_that_a_grant_cannot_tell_is_refused(machine: Machine, target: str) -> None:
    with pytest.raises(Malformed):
        machine.permissions().permit(permission(mounts=(MountProof(dev=1, inode=2, target=target),)))
    assert machine.permissions().seen() == ()


# ── what is on disk ──────────────────────────────────────────────────────────────────────────────────────────────────


def whole(machine: Machine) -> PermissionSeen:
    """The permission of k1 for CARD0 is on disk; what seen() says of it."""
    machine.permissions().permit(permission(CARD0, mounts=(WORKSPACE,)))
    (seen,) = machine.permissions().seen()
    return seen


def test_nothing_on_disk_is_nothing_seen(machine: Machine) -> None:
    assert machine.permissions().seen() == ()


def test_a_whole_permission_is_seen_as_it_was_given(machine: Machine) -> None:
    assert whole(machine) == PermissionSeen(
        key=permission().key,
        has_grant=True,
        has_spec=True,
        container_id=CONTAINER,
        generation="8f3a.1",
        slots=(CARD0.name,),
    )


def test_the_drivers_spec_and_other_vendors_are_no_permissions(machine: Machine) -> None:
    machine.permissions().write_driver_spec()
    (machine.specs / "nvidia.yaml").write_bytes(machine.places.spec.read_bytes())
    assert machine.permissions().seen() == ()


def test_a_spec_without_a_grant_still_names_its_slots(machine: Machine) -> None:
    whole(machine)
    (machine.grants / "k1").unlink()

    (seen,) = machine.permissions().seen()

    assert (seen.has_grant, seen.has_spec, seen.slots, seen.trouble) == (False, True, (CARD0.name,), None)
    assert (seen.container_id, seen.generation) == (CONTAINER, "8f3a.1")


def test_a_grant_without_a_spec_is_seen(machine: Machine) -> None:
    whole(machine)
    (machine.specs / "ds01-k1.json").unlink()

    (seen,) = machine.permissions().seen()

    assert (seen.has_grant, seen.has_spec, seen.slots, seen.trouble) == (True, False, (CARD0.name,), None)


def test_files_that_disagree_name_the_slots_of_both(machine: Machine) -> None:
    whole(machine)
    (machine.grants / "k1").write_text(f"{CONTAINER} 8f3a.2 {CARD1.name}\n")

    (seen,) = machine.permissions().seen()

    assert (seen.generation, seen.slots) == ("8f3a.2", (SlotId(CARD1.name), SlotId(CARD0.name)))
    assert seen.trouble == "grant and spec disagree"


@pytest.mark.parametrize("text", [b"", b"garbage", b"\0" * 100, b"a b\n", b"a b c", b"a b c\n1:2\n", os.urandom(200)])
def test_a_grant_that_cannot_be_read_is_told_and_its_spec_read(machine: Machine, text: bytes) -> None:
    whole(machine)
    (machine.grants / "k1").write_bytes(text)

    (seen,) = machine.permissions().seen()

    assert (seen.has_grant, seen.slots, seen.container_id) == (True, (CARD0.name,), CONTAINER)
    assert seen.trouble is not None
    assert seen.trouble.startswith("its grant cannot be read: ")


def _without_guard(spec: Any) -> None:  # noqa: ANN401
    spec["devices"][0]["containerEdits"]["hooks"] = []


def _other_key(spec: Any) -> None:  # noqa: ANN401
    spec["devices"][0]["containerEdits"]["hooks"][0]["args"][1] = "k2"


def _other_device(spec: Any) -> None:  # noqa: ANN401
    spec["devices"][0]["name"] = "k2"


def _second_device(spec: Any) -> None:  # noqa: ANN401
    spec["devices"].append(spec["devices"][0])


def _other_kind(spec: Any) -> None:  # noqa: ANN401
    spec["kind"] = "ds01/driver"


def _wrong_type(spec: Any) -> None:  # noqa: ANN401
    spec["devices"] = "all"


@pytest.mark.parametrize("spoil", [_without_guard, _other_key, _other_device, _second_device, _other_kind, _wrong_type])
def test_a_spec_that_is_not_one_of_ours_is_told(machine: Machine, spoil: Callable[[Any], None]) -> None:
    whole(machine)
    spec = spec_of(machine)
    spoil(spec)
    (machine.specs / "ds01-k1.json").write_text(json.dumps(spec))

    (seen,) = machine.permissions().seen()

    assert seen.slots == (CARD0.name,)  # the grant's
    assert seen.trouble is not None
    assert seen.trouble.startswith("its spec cannot be read: ")


def test_two_files_of_garbage_are_seen_by_their_name(machine: Machine) -> None:
    machine.grants.mkdir(parents=True)
    machine.specs.mkdir(parents=True)
    (machine.grants / "k9").write_bytes(b"\xff\xfe")
    (machine.specs / "ds01-k9.json").write_bytes(b"{")

    (seen,) = machine.permissions().seen()

    assert (seen.key, seen.has_grant, seen.has_spec, seen.container_id, seen.slots) == ("k9", True, True, None, ())
    assert seen.trouble is not None
    assert "its grant cannot be read" in seen.trouble
    assert "its spec cannot be read" in seen.trouble


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def killed_at(step: int, do: Callable[[], None]) -> bool:
    """Do it in a child that is killed at its nth operation on a file or directory; False when it came to its end.

    Python tells an audit hook of each open, rename and remove before it is made.
    """
    child = os.fork()
    if child == 0:
        left = step

        def hook(event: str, _: tuple[object, ...]) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            do()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_anywhere_in_giving_what_is_seen_is_what_is_there(machine: Machine, tmp_path: Path) -> None:
    states = set()
    for step in range(1000):
        made = installed(tmp_path / str(step))
        killed = killed_at(step, partial(made.permissions().permit, permission(CARD0)))
        seen = made.permissions().seen()
        states.add(tuple((one.has_grant, one.has_spec) for one in seen))
        assert all((one.trouble, one.slots, one.generation) == (None, (CARD0.name,), "8f3a.1") for one in seen)
        made.permissions().permit(permission(CARD0))
        assert made.permissions().seen() == (whole(machine),)
        if not killed:
            break
    assert states == {(), ((True, False),), ((True, True),)}  # never a spec without its grant


def test_killed_anywhere_in_changing_the_slot_neither_is_lost_from_sight(tmp_path: Path) -> None:
    states = set()
    for step in range(1000):
        made = installed(tmp_path / str(step))
        made.permissions().permit(permission(CARD0))
        killed = killed_at(step, partial(made.permissions().permit, permission(CARD1, generation="8f3a.2")))
        (seen,) = made.permissions().seen()
        states.add((seen.generation, seen.slots))
        if not killed:
            break
    old, between, new = ("8f3a.1", (CARD0.name,)), ("8f3a.2", (CARD1.name, CARD0.name)), ("8f3a.2", (CARD1.name,))
    assert states == {old, between, new}


def test_killed_anywhere_in_taking_the_grant_is_gone_before_the_spec(tmp_path: Path) -> None:
    states = set()
    for step in range(1000):
        made = installed(tmp_path / str(step))
        made.permissions().permit(permission(CARD0))
        killed = killed_at(step, partial(made.permissions().withdraw, "k1"))
        seen = made.permissions().seen()
        states.add(tuple((one.has_grant, one.has_spec) for one in seen))
        assert all((one.trouble, one.slots) == (None, (CARD0.name,)) for one in seen)
        made.permissions().withdraw("k1")
        assert made.permissions().seen() == ()
        if not killed:
            break
    assert states == {((True, True),), ((False, True),), ()}  # never a grant that has lost its spec


def test_what_a_crash_left_half_written_is_passed_over_and_taken_away(machine: Machine) -> None:
    whole(machine)
    (machine.grants / ".k1.new").write_bytes(b"half")
    (machine.specs / ".ds01-k1.json.new").write_bytes(b"half")

    (seen,) = machine.permissions().seen()
    machine.permissions().withdraw("k1")

    assert seen.trouble is None
    assert [*machine.grants.iterdir(), *machine.specs.iterdir()] == []
