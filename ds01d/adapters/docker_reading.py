"""What the engine's JSON says, as values of ours: times, states, labels. Pure; calls nothing."""

import calendar
import re
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from ds01d.model.facts import EngineStatus, Listed
from ds01d.model.ids import ContainerId, EngineId, Key, Uid
from ds01d.model.image import Image, owner_of

LABEL: Final = "ds01."

#: The engine's seven words. `removing` and `dead` run no more; a restart loop and a pause count as running.
_STATUS: Final = {
    "created": EngineStatus.CREATED,
    "running": EngineStatus.RUNNING,
    "paused": EngineStatus.RUNNING,
    "restarting": EngineStatus.RUNNING,
    "exited": EngineStatus.STOPPED,
    "removing": EngineStatus.STOPPED,
    "dead": EngineStatus.STOPPED,
}
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))")
_UNSET_YEAR: Final = "0001-"
_ID_DIGITS: Final = 10


class Unreadable(ValueError):
    """The engine said something that we do not know; nothing may be concluded from it."""


class InspectSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One container as the engine's inspect tells it."""

    engine_id: EngineId
    name: str
    image: str
    status: EngineStatus
    #: Of its init in the engine's pid namespace; 0: none, also between two rounds of a restart loop.
    pid: int
    #: Epoch seconds; 0: never.
    started_at: float
    finished_at: float
    exit_code: int | None
    #: What went wrong at the last start, in the engine's words.
    error: str
    labels: Mapping[str, str]
    cgroup_parent: str
    #: Whatever names or reaches a GPU: CDI names, indices, UUIDs, device paths; `all` where it may reach every one.
    gpus: tuple[str, ...]

    @property
    def label_id(self) -> str | None:
        """Our container id on its label; a label alone proves nothing."""
        return self.labels.get(f"{LABEL}id")

    @property
    def label_key(self) -> str | None:
        """Our key on its label."""
        return self.labels.get(f"{LABEL}key")


class _State(msgspec.Struct, rename="pascal"):
    status: str
    running: bool = False
    paused: bool = False
    restarting: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""


class _Request(msgspec.Struct):
    driver: str = msgspec.field(name="Driver", default="")
    count: int = msgspec.field(name="Count", default=0)
    device_ids: list[str] | None = msgspec.field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = msgspec.field(name="Capabilities", default=None)


class _Device(msgspec.Struct, rename="pascal"):
    path_on_host: str = ""


class _Mount(msgspec.Struct, rename="pascal"):
    source: str = ""


class _Host(msgspec.Struct, rename="pascal"):
    device_requests: list[_Request] | None = None
    devices: list[_Device] | None = None
    privileged: bool = False
    cgroup_parent: str = ""
    runtime: str | None = None


class _Config(msgspec.Struct, rename="pascal"):
    image: str = ""
    labels: dict[str, str] | None = None
    env: list[str] | None = None


class _Inspect(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config
    host_config: _Host
    mounts: list[_Mount] | None = None


class _Row(msgspec.Struct, rename="pascal"):
    id: str
    names: list[str] | None = None
    image: str = ""
    state: str = ""
    created: int = 0
    labels: dict[str, str] | None = None


class _ImageRow(msgspec.Struct, rename="pascal"):
    repo_tags: list[str] | None = None
    size: int = 0
    created: int = 0


def epoch(text: str) -> float:
    """Seconds since 1970 of one of the engine's times; 0.0 for the year 1, which means never.

    The engine writes nanoseconds and any zone, which `fromisoformat` of older Pythons refuses.
    """
    if not text or text.startswith(_UNSET_YEAR):
        return 0.0
    match = _TIME.fullmatch(text)
    if match is None:
        raise Unreadable(f"cannot read the engine's time {text!r}")
    seconds = float(calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")))
    if match[3]:
        offset = int(match[4]) * 3600 + int(match[5]) * 60
        seconds += -offset if match[3] == "+" else offset
    return seconds + float(match[2] or 0)


def status_of(word: str) -> EngineStatus:
    """What the engine's word for a container's state means for us."""
    try:
        return _STATUS[word]
    except KeyError:
        raise Unreadable(f"cannot tell what the engine's state {word!r} means") from None


def read_inspect(answer: object) -> InspectSeen:
    """Read the answer to an inspect."""
    try:
        seen = msgspec.convert(answer, _Inspect)
    except msgspec.ValidationError as error:
        raise Unreadable(f"cannot read the engine's inspect: {error}") from error
    state = seen.state
    status = status_of(state.status)
    if state.running or state.paused or state.restarting:
        # The word and the flags come from one lock, yet an engine that contradicts itself is taken at its worst.
        status = EngineStatus.RUNNING
    return InspectSeen(
        engine_id=EngineId(seen.id),
        name=seen.name.removeprefix("/"),
        image=seen.config.image,
        status=status,
        pid=state.pid,
        started_at=epoch(state.started_at),
        finished_at=epoch(state.finished_at),
        exit_code=state.exit_code if status is EngineStatus.STOPPED else None,
        error=state.error,
        labels=seen.config.labels or {},
        cgroup_parent=seen.host_config.cgroup_parent,
        gpus=_gpus(seen),
    )


def read_row(answer: object) -> tuple[Listed, Mapping[str, str]]:
    """Read one row of a listing, and give its labels besides."""
    try:
        row = msgspec.convert(answer, _Row)
    except msgspec.ValidationError as error:
        raise Unreadable(f"cannot read the engine's listing: {error}") from error
    labels = row.labels or {}
    key, uid = labels.get(f"{LABEL}key"), _number(labels.get(f"{LABEL}uid"))
    label_id = labels.get(f"{LABEL}id")
    listed = Listed(
        engine_id=EngineId(row.id),
        # A linked container has names with a second slash, which are others' names for it.
        name=next((name[1:] for name in row.names or () if name.count("/") == 1), ""),
        status=status_of(row.state),
        image=row.image,
        created_at=float(row.created),
        label_id=None if label_id is None else ContainerId(label_id),
        label_key=None if key is None else Key(key),
        label_uid=None if uid is None else Uid(uid),
        label_gid=_number(labels.get(f"{LABEL}gid")),
        label_user=labels.get(f"{LABEL}user"),
        label_name=labels.get(f"{LABEL}name"),
    )
    return listed, labels


def _number(label: str | None) -> int | None:
    # Anybody writes labels: no longer than a uid is.
    return (
        int(label) if label is not None and label.isascii() and label.isdigit() and len(label) <= _ID_DIGITS else None
    )


def read_images(answer: object) -> tuple[Image, ...]:
    """Every name in a listing of images, in alphabetical order; an image without a name cannot be asked for."""
    try:
        rows = msgspec.convert(answer, list[_ImageRow])
    except msgspec.ValidationError as error:
        raise Unreadable(f"cannot read the engine's list of images: {error}") from error
    named = {
        tag: Image(reference=tag, owner=owner_of(tag), size_bytes=row.size, created_at=float(row.created))
        for row in rows
        for tag in row.repo_tags or ()
        if tag != "<none>:<none>"
    }
    return tuple(named[tag] for tag in sorted(named))


def _gpus(seen: _Inspect) -> tuple[str, ...]:
    host = seen.host_config
    found: list[str] = []
    for request in host.device_requests or ():
        found += _requested(request)
    devices = [device.path_on_host for device in host.devices or ()]
    mounts = [mount.source for mount in seen.mounts or ()]
    found += [path for path in devices + mounts if path.startswith("/dev/nvidia")]
    if host.privileged or "/dev" in mounts:
        found.append("all")
    if host.runtime == "nvidia":
        # Under another runtime the variable means nothing, and CUDA images carry it without being asked.
        for value in [text.partition("=")[2] for text in seen.config.env or () if _names_devices(text)][-1:]:
            found += [part for part in value.split(",") if part not in ("", "void", "none")]
    return tuple(dict.fromkeys(found))


def _names_devices(variable: str) -> bool:
    return variable.startswith("NVIDIA_VISIBLE_DEVICES=")


def _requested(request: _Request) -> list[str]:
    capabilities = {word for group in request.capabilities or () for word in group}
    if request.driver == "cdi":
        return list(request.device_ids or ())
    if request.driver not in ("", "nvidia") or (not request.driver and "gpu" not in capabilities):
        return []
    if request.device_ids:
        return list(request.device_ids)
    # Count N means the indices 0 to N-1, for everybody who asks; -1 means all of them.
    return ["all"] if request.count < 0 else [str(index) for index in range(request.count)]
