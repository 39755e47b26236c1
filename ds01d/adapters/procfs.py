"""What /proc says of a process: who it is, whose, and which container it lives in. Small reads, no rules about it.

A pid alone names nobody, because pids are used again: everything here goes with the start time, read before and after.
A line ends with a newline, which the kernel escapes elsewhere; whatever else ends one for Python may be part of a name.
"""

import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files import contents
from ds01d.model.ids import EngineId, Uid

_ID: Final = r"(?P<id>[0-9a-f]{64})"
#: Whole segments only. `libpod-conmon-…` is podman's watcher and no payload; 32 hex digits are no container.
_SEGMENTS: Final = (
    (re.compile(rf"docker-{_ID}\.scope"), "docker"),
    (re.compile(rf"libpod-{_ID}(\.scope)?"), "podman"),
    (re.compile(rf"libpod-payload-{_ID}"), "podman"),
    (re.compile(rf"cri-containerd-{_ID}\.scope"), "containerd"),
    (re.compile(rf"crio-{_ID}\.scope"), "cri-o"),
    (re.compile(rf"nerdctl-{_ID}\.scope"), "nerdctl"),
    (re.compile(_ID), "unknown"),
)
_USER_SLICE: Final = re.compile(r"user-([0-9]+)\.slice")
#: The v2 line first: a zombie keeps its path there only. Memory last: others move processes about in it.
_ORDER: Final = ("", "name=systemd", "pids", "devices", "cpuset")

#: Processes that use a card for everybody's sake. The first three run as services, under uids of the system.
_SERVICES: Final = re.compile(r"nvidia-persistenced|nv-hostengine|dcgm.*")
_TOOLS: Final = re.compile(r"nvidia-smi|Xorg|X|gnome-shell")
_SYSTEM_UID_MAX: Final = 999
_NO_LOGIN: Final = 2**32 - 1
_COMMAND_CHARS_MAX: Final = 1000
#: Processes stay where they are: what a text says is worked out once. More than that many are not on GPUs at a time.
_TEXTS_KEPT: Final = 1024


class ContainerRef(msgspec.Struct, frozen=True, kw_only=True):
    """The container on this host that a process lives in."""

    id: EngineId
    #: Which engine's form the path has; `unknown` for a bare id. A hint: only an engine's listing proves it.
    runtime: str
    #: The container's cgroup, without what lies below it.
    path: str
    #: A rootless engine's user.
    rootless_uid: Uid | None = None
    #: Ids of containers further down, made by an engine inside this one.
    nested: tuple[EngineId, ...] = ()


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process, as it was at one moment."""

    pid: int
    #: Clock ticks since boot; with the pid it names the process until the next boot.
    start_time: int
    ppid: int
    uid: Uid
    #: Who logged in, also behind sudo; None: nobody did.
    login_uid: Uid | None
    #: As in its own mount namespace; None: a kernel thread, or not to be read.
    exe: str | None
    #: For people; at most 1000 characters.
    command: str
    container: ContainerRef | None


def cgroup_paths(cgroup_text: str) -> list[str]:
    """The paths in /proc/PID/cgroup, the most telling first."""
    found: list[tuple[int, str]] = []
    for line in cgroup_text.split("\n"):
        parts = line.split(":", 2)
        if len(parts) != 3:  # noqa: PLR2004 - number, controllers, path
            continue
        names = parts[1].split(",")
        rank = min(
            (_ORDER.index(name) if name in _ORDER else len(_ORDER) + (name == "memory") for name in names),
            default=len(_ORDER),
        )
        found.append((rank, parts[2].removesuffix(" (deleted)")))
    return [path for _, path in sorted(found, key=lambda row: row[0])]


@lru_cache(maxsize=_TEXTS_KEPT)
def container_of(cgroup_text: str) -> ContainerRef | None:
    """The container that /proc/PID/cgroup names, or None: a process of the host, or one that hides from cgroups."""
    return next((ref for path in cgroup_paths(cgroup_text) if (ref := _container_in(path)) is not None), None)


def _container_in(path: str) -> ContainerRef | None:
    segments = path.split("/")
    hits: list[tuple[int, str, str]] = []
    for at, segment in enumerate(segments):
        for form, runtime in _SEGMENTS:
            if (match := form.fullmatch(segment)) is not None:
                hits.append((at, match["id"], runtime))
                break
    if not hits:
        return None
    at, first, runtime = hits[0]
    if runtime == "unknown" and segments[at - 1] == "docker":
        runtime = "docker"
    users = [match[1] for segment in segments[:at] if (match := _USER_SLICE.fullmatch(segment)) is not None]
    return ContainerRef(
        id=EngineId(first),
        runtime=runtime,
        path="/".join(segments[: at + 1]),
        rootless_uid=Uid(int(users[0])) if users else None,
        nested=tuple(EngineId(id_) for _, id_, _ in hits[1:] if id_ != first),
    )


class Procfs:
    """The process table under a root directory; tests give another one."""

    def __init__(self, root: Path = Path("/"), proc: Path | None = None) -> None:
        self._root = root
        self._proc = proc if proc is not None else root / "proc"
        #: Where each process has a directory.
        self._processes = str(self._proc)

    def boot_id(self) -> str:
        """The id of this boot; after another one every pid, start time and device path is stale."""
        return (self._proc / "sys/kernel/random/boot_id").read_text().strip()

    def start_time(self, pid: int) -> int | None:
        """Clock ticks from boot to the process's start; None: there is no such process."""
        found = self._stat(pid)
        return None if found is None else found[1]

    def process(self, pid: int) -> Process | None:
        """Read one process; None: it is gone, or another took its pid meanwhile."""
        before = self._stat(pid)
        if before is None:
            return None
        ppid, start_time, name = before
        at = f"{self._processes}/{pid}"
        try:
            uid = _real_uid(_text(f"{at}/status"))
            cgroup = _text(f"{at}/cgroup")
            command = _command(contents(f"{at}/cmdline"), name)
        except OSError:
            return None
        seen = Process(
            pid=pid,
            start_time=start_time,
            ppid=ppid,
            uid=uid,
            login_uid=_login_uid(at),
            exe=_exe(at),
            command=command,
            container=container_of(cgroup),
        )
        return seen if self.start_time(pid) == start_time else None

    def cgroup_text(self, pid: int) -> str | None:
        """The whole of /proc/PID/cgroup; None: there is no such process. A byte that is no text is a U+FFFD there."""
        try:
            return _text(f"{self._processes}/{pid}/cgroup")
        except OSError:
            return None

    def pidfd(self, pid: int, start_time: int | None = None) -> int | None:
        """Hold a process by a descriptor, which the caller closes; None: it is gone, or is not the one started then."""
        try:
            held = os.pidfd_open(pid)
        except OSError:
            return None
        if start_time is not None and self.start_time(pid) != start_time:
            os.close(held)
            return None
        return held

    def infrastructure(self, process: Process) -> bool:
        """Whether it uses cards for everybody's sake (display, monitoring). A name alone makes nobody that.

        The program has to be this host's file, not one of the same path in a container, and nobody but root may be
        able to put another in its place.
        """
        if process.exe is None:
            return False
        program = Path(process.exe)
        if _SERVICES.fullmatch(program.name):
            if process.uid > _SYSTEM_UID_MAX:
                return False
        elif not _TOOLS.fullmatch(program.name):
            return False
        try:
            same = os.path.samestat((self._proc / str(process.pid) / "exe").stat(), program.stat())
            return same and program.is_relative_to(self._root) and self._only_root_changes(program)
        except OSError:
            return False

    def _only_root_changes(self, program: Path) -> bool:
        for place in (program, *program.parents):
            facts = place.lstat()
            if facts.st_uid != 0 or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
            if place == self._root:
                break
        return True

    def _stat(self, pid: int) -> tuple[int, int, str] | None:
        """Parent, start time and name; a name may hold spaces and parentheses, so fields count from the last one."""
        try:
            text = _text(f"{self._processes}/{pid}/stat")
        except OSError:
            return None
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        return int(fields[1]), int(fields[19]), head.partition("(")[2]


def _text(file: str) -> str:
    return contents(file).decode(errors="replace")


def _login_uid(at: str) -> Uid | None:
    try:
        uid = int(contents(f"{at}/loginuid"))
    except (OSError, ValueError):  # a kernel without audit has no such file
        return None
    return None if uid == _NO_LOGIN else Uid(uid)


def _real_uid(status_text: str) -> Uid:
    line = next(line for line in status_text.split("\n") if line.startswith("Uid:"))
    return Uid(int(line.split()[1]))


def _exe(at: str) -> str | None:
    try:
        return os.readlink(f"{at}/exe")  # noqa: PTH115  # as in `files`
    except OSError:
        return None


def _command(cmdline: bytes, name: str) -> str:
    """The arguments, joined; a zombie or kernel thread has none and goes by its name in brackets, as in ps."""
    text = cmdline.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return (text or f"[{name}]")[:_COMMAND_CHARS_MAX]
