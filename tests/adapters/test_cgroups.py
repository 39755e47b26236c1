"""Where a container's cgroup is and whether it is empty: on trees made for it, and on this machine's own."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds01d.adapters.cgroups import Cgroups, Mode, Neighbours, container_path, normal, path_of
from ds01d.adapters.procfs import Procfs
from ds01d.model.ids import EngineId

A = EngineId("a" * 64)

V1 = "31 23 0:29 / /sys/fs/cgroup/{0} rw,relatime shared:9 - cgroup cgroup rw,{0}\n"
V2 = "41 23 0:39 / {0} rw,relatime - cgroup2 cgroup2 rw\n"


def v1_line(n: int, name: str) -> str:
    return V1.format(name).replace("0:29", f"0:{n}")


def host(tmp_path: Path, *mounts: str) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("23 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(mounts))
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    return host(tmp_path, v1_line(29, "pids"), v1_line(30, "devices"))


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    return host(tmp_path, V2.format("/sys/fs/cgroup"))


def group(root: Path, path: str, *pids: int, populated: int | None = None) -> Path:
    directory = root / "sys/fs/cgroup" / path
    directory.mkdir(parents=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    if populated is not None:
        (directory / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    return directory


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "driver", "path"),
    [
        ("ds01-admin-bob.slice", "systemd", "/ds01.slice/ds01-admin.slice/ds01-admin-bob.slice/docker-{}.scope"),
        ("ds01-a-x\\x2dy.slice", "systemd", "/ds01.slice/ds01-a.slice/ds01-a-x\\x2dy.slice/docker-{}.scope"),
        ("", "systemd", "/system.slice/docker-{}.scope"),
        ("-.slice", "systemd", "/docker-{}.scope"),
        ("/ds01/student/alice", "cgroupfs", "/ds01/student/alice/{}"),
        ("/ds01/", "cgroupfs", "/ds01/{}"),
        ("", "cgroupfs", "/docker/{}"),
    ],
)  # fmt: skip
def test_a_containers_path_follows_from_parent_and_driver(parent: str, driver: str, path: str) -> None:
    assert container_path(parent, driver, A) == path.format(A)


@pytest.mark.parametrize(
    ("parent", "driver"),
    [
        ("relative", "cgroupfs"),
        ("/ds01/../x", "cgroupfs"),
        ("/ds01", "systemd"),
        ("a--b.slice", "systemd"),
        ("a/b.slice", "systemd"),
        ("a\0b.slice", "systemd"),
        ("", "none"),
    ],
)
def test_a_path_that_cannot_be_told_is_not_guessed(parent: str, driver: str) -> None:
    assert container_path(parent, driver, A) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"0::/system.slice/docker-{A}.scope/init.scope\n", f"/system.slice/docker-{A}.scope"),
        (f"4:memory:/elsewhere\n8:pids:/docker/{A}\n0::/\n", f"/docker/{A}"),
        ("0::/user.slice/session-1.scope\n", "/user.slice/session-1.scope"),
        ("0::/\n", None),
        (f"0::/../{A}\n", None),
    ],
)
def test_one_path_is_recorded_of_a_running_process(text: str, path: str | None) -> None:
    assert path_of(text) == path


def test_a_path_has_one_form() -> None:
    assert [normal(p) for p in ("/a//b/", "//a/b", "/a/./b", "/a/b (deleted)")] == ["/a/b"] * 4
    assert [normal(p) for p in ("/", "//", "a/b", "/a/../b", "", "/a\ufffd", "/a\0b")] == [None] * 7


def test_the_hosts_kind_is_recognised(tmp_path: Path) -> None:
    unified = V2.format("/sys/fs/cgroup/unified")

    assert [
        Cgroups(host(tmp_path / "0")).mode,
        Cgroups(host(tmp_path / "1", v1_line(29, "pids"))).mode,
        Cgroups(host(tmp_path / "2", V2.format("/sys/fs/cgroup"))).mode,
        Cgroups(host(tmp_path / "3", v1_line(29, "pids"), unified)).mode,
    ] == [Mode.NONE, Mode.V1, Mode.V2, Mode.HYBRID]


def test_a_tree_mounted_twice_counts_once_and_a_part_of_one_not_at_all(tmp_path: Path) -> None:
    again = v1_line(29, "again")
    part = v1_line(30, "devices").replace(" / /sys", " /docker/x /sys")

    found = Cgroups(host(tmp_path, v1_line(29, "pids"), again, part)).hierarchies

    assert [hierarchy.mount.name for hierarchy in found] == ["pids"]


# --- empty or not -----------------------------------------------------------------------------------------------------


def test_a_cgroup_that_is_nowhere_is_empty(v1: Path) -> None:
    assert Cgroups(v1).empty(f"/docker/{A}") is True
    assert Cgroups(v1).members(f"/docker/{A}") == []


def test_one_tree_with_a_process_is_enough_not_to_be_empty(v1: Path) -> None:
    group(v1, f"pids/docker/{A}")
    group(v1, f"devices/docker/{A}", 4711)

    assert Cgroups(v1).empty(f"/docker/{A}") is False
    assert Cgroups(v1).members(f"/docker/{A}") == [4711]


def test_a_process_far_below_counts(v1: Path) -> None:
    group(v1, f"pids/docker/{A}")
    group(v1, f"pids/docker/{A}/system.slice")
    group(v1, f"pids/docker/{A}/system.slice/x.service", 12, 13)

    assert Cgroups(v1).empty(f"/docker/{A}") is False
    assert Cgroups(v1).members(f"/docker/{A}") == [12, 13]


def test_a_process_we_cannot_name_still_occupies(v1: Path) -> None:
    group(v1, f"pids/docker/{A}", 0)

    assert Cgroups(v1).empty(f"/docker/{A}") is False
    assert Cgroups(v1).members(f"/docker/{A}") == []


def test_empty_directories_are_empty(v1: Path) -> None:
    group(v1, f"pids/docker/{A}")
    group(v1, f"devices/docker/{A}/sub")
    (v1 / f"sys/fs/cgroup/devices/docker/{A}/cgroup.procs").write_text("")

    assert Cgroups(v1).empty(f"/docker/{A}") is True


def test_what_cannot_be_read_is_unknown_unless_another_tree_knows_better(v1: Path) -> None:
    broken = group(v1, f"pids/docker/{A}")
    (broken / "cgroup.procs").unlink()
    assert Cgroups(v1).empty(f"/docker/{A}") is None

    group(v1, f"devices/docker/{A}", 5)
    assert Cgroups(v1).empty(f"/docker/{A}") is False


@pytest.mark.parametrize("path", ["/", "", "docker/x", "/docker/../x"])
def test_a_path_that_names_no_container_is_never_empty(v1: Path, path: str) -> None:
    assert Cgroups(v1).empty(path) is None


def test_a_host_without_cgroups_knows_nothing(tmp_path: Path) -> None:
    assert Cgroups(host(tmp_path)).empty(f"/docker/{A}") is None


def test_v2_tells_by_its_events_file(v2: Path) -> None:
    group(v2, "docker/dead", populated=0)
    group(v2, "docker/alive", populated=1)
    group(v2, "docker/odd")

    cgroups = Cgroups(v2)

    assert [cgroups.empty(f"/docker/{name}") for name in ("dead", "alive", "absent", "odd")] == [
        True,
        False,
        True,
        None,
    ]


@pytest.mark.parametrize("tree", ["v1", "v2"])
def test_who_asks_for_many_at_a_time_is_told_the_same(tree: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(tree)
    at = "" if tree == "v2" else "devices/"
    group(root, f"{at}docker/alive", 5, populated=1)
    group(root, f"{at}docker/dead", populated=0)
    if tree == "v1":
        (root / "sys/fs/cgroup/devices/docker/dead/cgroup.procs").write_text("")
    (root / f"sys/fs/cgroup/{at}file").write_text("")
    cgroups, neighbours = Cgroups(root), Neighbours()
    paths = [*(f"/docker/{name}" for name in ("alive", "dead", "absent")), "/nowhere/x", "/file/x", "/\ud800/x"]

    assert [cgroups.empty(path, neighbours) for path in paths] == [False, True, True, True, None, None]
    assert [cgroups.empty(path) for path in paths] == [False, True, True, True, None, None]

    group(root, f"{at}docker/absent", 6, populated=1)
    assert [cgroups.empty("/docker/absent", when) for when in (neighbours, Neighbours(), None)] == [True, False, False]


# --- this machine -----------------------------------------------------------------------------------------------------


@contextmanager
def real_group(path: str, *, only: str | None = None) -> Iterator[list[Path]]:
    """Make a cgroup in every tree of this machine, or in those whose mount has this name."""
    places = [h.mount / path.lstrip("/") for h in Cgroups().hierarchies if only is None or h.mount.name == only]
    try:
        for place in places:
            (place / "below").mkdir(parents=True)
        yield places
    finally:
        for place in places:
            _remove(place / "below")
            _remove(place)


def _remove(place: Path) -> None:
    deadline = time.monotonic() + 10
    while place.exists():
        try:
            place.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def unused() -> str:
    return f"/ds01-test-{os.getpid()}"


def test_a_mount_point_may_be_called_anything(tmp_path: Path) -> None:
    odd = "40 29 0:40 / /home/a/m\r40\\040\x8529\u20280:41 rw - fuse.sshfs a rw\n"
    assert [h.mount.name for h in Cgroups(host(tmp_path, odd, v1_line(29, "pids"))).hierarchies] == ["pids"]


def test_this_machines_trees_are_found() -> None:
    found = Cgroups()

    assert found.mode is not Mode.NONE
    assert all((hierarchy.mount / "cgroup.procs").exists() for hierarchy in found.hierarchies)


def test_a_real_cgroup_is_empty_exactly_while_nobody_is_in_it() -> None:
    path = unused()
    cgroups = Cgroups()
    with real_group(path) as places:
        assert cgroups.empty(path) is True
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            (places[0] / "below/cgroup.procs").write_text(str(sleeper.pid))

            assert cgroups.empty(path) is False
            assert cgroups.members(path) == [sleeper.pid]

            sleeper.kill()
            sleeper.wait()
        assert cgroups.members(path) == []
        assert cgroups.empty(path) is True
    assert cgroups.empty(path) is True


@pytest.mark.skipif(Cgroups().mode is Mode.V2, reason="this machine has one tree only")
def test_every_real_tree_is_asked() -> None:
    path = unused()
    cgroups = Cgroups()
    for hierarchy in cgroups.hierarchies:
        # A cpuset takes nobody before it has been given processors and memory.
        if hierarchy.mount.name == "cpuset":
            continue
        with real_group(path, only=hierarchy.mount.name) as (place,), subprocess.Popen(["sleep", "60"]) as sleeper:
            (place / "below/cgroup.procs").write_text(str(sleeper.pid))

            assert cgroups.empty(path) is False, hierarchy.mount

            sleeper.kill()
            sleeper.wait()


def test_a_real_process_is_recorded_where_it_is() -> None:
    path = f"/{os.getpid():064x}"
    with real_group(path) as places, subprocess.Popen(["sleep", "60"]) as sleeper:
        (places[-1] / "below/cgroup.procs").write_text(str(sleeper.pid))

        text = Procfs().cgroup_text(sleeper.pid)
        sleeper.kill()

        assert text is not None
        assert path_of(text) == path
