"""A container's cgroup: where it is, who is in it, whether it is empty. Under v1, hybrid and v2; reads only.

An empty cgroup is half of the proof that frees a GPU, so what cannot be read is unknown and never empty.
"""

import errno
import os
import posixpath
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files import contents
from ds01d.adapters.procfs import cgroup_paths, container_of
from ds01d.model.ids import EngineId

#: The directory, or a file in it, went away while we read: ENODEV is what a file of a removed cgroup says.
_GONE: Final = (errno.ENOENT, errno.ENODEV)

#: What no path here has, and what stands for a byte that is no text: there is no going back from it to the path.
_NO_NAME: Final = ("\0", "\N{REPLACEMENT CHARACTER}")


class Mode(StrEnum):
    """Which cgroup hierarchies this host has."""

    V1 = "v1"
    #: v1 controllers, and a v2 tree that knows the processes but controls nothing.
    HYBRID = "hybrid"
    V2 = "v2"
    NONE = "none"


class Hierarchy(msgspec.Struct, frozen=True, kw_only=True):
    """One mounted tree."""

    mount: Path
    v2: bool


def container_path(parent: str, driver: str, engine_id: EngineId) -> str | None:
    """Where Docker puts a container, by its cgroup parent (empty: the default) and driver; None: cannot be told.

    systemd: the name of a slice holds the names of those around it. cgroupfs: a relative parent would be counted from
    wherever the engine itself was started.
    """
    match driver:
        case "systemd":
            slice_name = parent or "system.slice"
            if not slice_name.endswith(".slice") or "/" in slice_name:
                return None
            parts = slice_name.removesuffix(".slice").split("-")
            if slice_name != "-.slice" and not all(parts):
                return None
            slices = [] if slice_name == "-.slice" else ["-".join(parts[: n + 1]) + ".slice" for n in range(len(parts))]
            return normal("/" + "/".join([*slices, f"docker-{engine_id}.scope"]))
        case "cgroupfs":
            return normal(posixpath.join(parent or "/docker", engine_id))
        case _:
            return None


def path_of(cgroup_text: str) -> str | None:
    """The one cgroup path to record for a process: its container's, else its own; None: the root, or hidden from us."""
    ref = container_of(cgroup_text)
    paths = [ref.path] if ref is not None else cgroup_paths(cgroup_text)
    return next((path for path in map(normal, paths) if path is not None), None)


def normal(path: str) -> str | None:
    """Bring a path into one form; None for the root, a relative one, one that leaves our namespace, or is no text."""
    if not path.startswith("/") or ".." in path.split("/") or any(odd in path for odd in _NO_NAME):
        return None
    clean = posixpath.normpath("/" + path.removesuffix(" (deleted)").strip("/"))
    return None if clean == "/" else clean


class Neighbours:
    """What lay in a directory when it was first asked for: one question for all containers that lie side by side."""

    def __init__(self) -> None:
        #: None: it could not be read.
        self._names: dict[str, set[str] | None] = {}

    def lacks(self, directory: str) -> bool:
        """Whether there was no such directory; where that cannot be told, there may be one."""
        parent, _, name = directory.rpartition("/")
        if parent not in self._names:
            self._names[parent] = _names(parent)
        names = self._names[parent]
        return names is not None and name not in names


class Cgroups:
    """The trees of this host, found once; tests give another root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.hierarchies = tuple(_mounted(root))
        self._trees = tuple((str(hierarchy.mount), hierarchy.v2) for hierarchy in self.hierarchies)
        kinds = {hierarchy.v2 for hierarchy in self.hierarchies}
        self.mode = {
            frozenset[bool](): Mode.NONE,
            frozenset({False}): Mode.V1,
            frozenset({True}): Mode.V2,
            frozenset({False, True}): Mode.HYBRID,
        }[frozenset(kinds)]

    def members(self, path: str) -> list[int]:
        """The pids in a cgroup and below, over every tree that has it. One that we cannot name (pid 0) is left out."""
        pids: set[int] = set()
        for hierarchy in self.hierarchies:
            pids.update(_pids(_inside(hierarchy, path)))
        return sorted(pids - {0})

    def empty(self, path: str, neighbours: Neighbours | None = None) -> bool | None:
        """Whether no tree has a process in this cgroup or below; None: one of them could not be read.

        v1 moves a starting process into one tree after the other, so all are asked; `devices` comes late. Who asks for
        many at a time brings their neighbours: the answer is then true of the moment at which that was made.
        """
        clean = normal(path)
        if not self.hierarchies or clean is None:
            return None
        known = True
        for mount, v2 in self._trees:
            directory = f"{mount}{clean}"
            if neighbours is not None and neighbours.lacks(directory):
                continue
            try:
                if not _empty(directory, v2=v2):
                    return False
            except (OSError, ValueError):
                known = False
        return True if known else None


def _mounted(root: Path) -> list[Hierarchy]:
    """Read the mount table. A tree mounted twice is taken once; one that shows only a part is not taken at all."""
    found: dict[str, Hierarchy] = {}
    table = contents(f"{root}/proc/self/mountinfo").decode(errors="replace")
    for line in table.removesuffix("\n").split("\n"):
        left, _, right = line.partition(" - ")
        kind = right.split(" ", 1)[0]
        _, _, device, top, mount, *_ = left.split(" ")
        if kind in ("cgroup", "cgroup2") and top == "/":
            # The mount table writes a space as \040.
            place = root / mount.replace("\\040", " ").lstrip("/")
            found.setdefault(device, Hierarchy(mount=place, v2=kind == "cgroup2"))
    return list(found.values())


def _inside(hierarchy: Hierarchy, path: str) -> str:
    clean = normal(path)
    if clean is None:
        raise ValueError(f"cannot look into the cgroup {path!r}: not an absolute path below the root")
    return f"{hierarchy.mount}{clean}"


# Each listing asks every tree about every container, most of which have no cgroup: 1200 questions with twelve trees of
# v1 and 100 containers. So paths are texts here, and what is not there costs one system call.
# ruff: noqa: PTH116, PTH208


def _empty(directory: str, *, v2: bool) -> bool:
    """Whether nothing lives in it, in one tree; OSError when it cannot be read."""
    if v2:
        try:
            events = contents(f"{directory}/cgroup.events").decode()
        except OSError as error:
            if error.errno in _GONE and not _there(directory):
                return True
            raise
        return "populated 0" in events.splitlines()
    # Twice, because a process that is moved between two of its cgroups during one walk can be missed by it.
    return not _there(directory) or (not _pids(directory) and not _pids(directory))


def _pids(directory: str) -> set[int]:
    """The pids in a directory and all below it; one that goes away meanwhile had nobody in it."""
    pids: set[int] = set()
    try:
        if not _there(directory):
            return pids
        pids.update(map(int, _procs(directory).split()))
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir()]
    except OSError as error:
        if error.errno in _GONE and not _there(directory):
            return pids
        raise
    for child in below:
        pids |= _pids(child)
    return pids


def _there(directory: str) -> bool:
    """Whether there is one; OSError when that cannot be told."""
    try:
        os.stat(directory)
    except FileNotFoundError:
        return False
    return True


def _names(directory: str) -> set[str] | None:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError):
        return None


def _procs(directory: str) -> str:
    try:
        return contents(f"{directory}/cgroup.procs").decode()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return contents(f"{directory}/cgroup.threads").decode()  # v2: a threaded cgroup lists threads only
