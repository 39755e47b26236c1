"""Small pieces that join the parts: where everything lies, the saver, who is told, the sockets. They know no rule."""

import asyncio
import ctypes
import gc
import secrets
import socket
from pathlib import Path
from typing import NamedTuple

import msgspec

from ds01d.adapters.engine_listing import EngineListing
from ds01d.adapters.metadata import MetadataFiles
from ds01d.adapters.own_thread import begin
from ds01d.adapters.recorder import Recorder
from ds01d.adapters.sessions import Sessions
from ds01d.adapters.store import Empty, Loaded, Snapshot, Store
from ds01d.adapters.store import Unreadable as NoState
from ds01d.adapters.systemd import Inherited
from ds01d.core.laws import LawBroken, check
from ds01d.core.snapshot import load
from ds01d.core.state import State
from ds01d.core.views.metadata import metadata_of
from ds01d.logs import log
from ds01d.loop.chronicle import Line
from ds01d.model.chronicle import EventLine
from ds01d.model.ids import ContainerId, EngineId


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything lies."""

    etc: Path = Path("/etc/ds01")
    state: Path = Path("/var/lib/ds01")
    log: Path = Path("/var/log/ds01")
    run: Path = Path("/run/ds01")
    #: The engine reads CDI specs here, and we never anywhere else.
    cdi: Path = Path("/run/cdi")
    vendor_cdi: tuple[Path, ...] = (Path("/etc/cdi"), Path("/run/cdi"))
    guard: Path = Path("/usr/lib/ds01/cdi-guard")
    init: Path = Path("/usr/lib/ds01/ds01-init")


class StateSaver:
    """The state file behind a thread of its own; what a save has to say beyond success goes to the log."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, body: bytes, state: State, /) -> "asyncio.Future[None]":
        """Begin to save; the loop asks for one at a time."""
        snapshot = Snapshot(lineage=state.lineage, boot_id=state.boot_id, revision=state.revision, body=body)
        return begin(lambda: self._save(snapshot), "state-saver")

    def _save(self, snapshot: Snapshot) -> None:
        if self._store.save(snapshot).ballast_given_up:
            log.error("state.disk_full", do="free space where /var/lib/ds01 lies: the reserve is used up")


def recalled_state(found: Loaded | Empty | NoState, boot_id: str) -> tuple[State, str | None]:
    """The saved state, or a new one; and why only reads may be answered, where nothing could be loaded."""
    fresh = secrets.token_hex(4)
    match found:
        case Empty():
            return State(lineage=fresh, boot_id=boot_id), None
        case Loaded():
            lineage = fresh if found.fell_back else found.lineage
            try:
                state = load(
                    found.state,
                    lineage=lineage,
                    written_by=found.lineage,
                    boot_id=found.boot_id,
                    revision=found.revision,
                )
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                return State(lineage=fresh, boot_id=boot_id), f"the saved state cannot be read: {error}"
            try:
                check(state)
            except LawBroken as broken:
                # Only what it is about stands still: no change that touches it is let through.
                log.error("state.unlawful", error=str(broken), do="report this, with the file gpu-state.json")
            return state, None
        case NoState():
            return State(lineage=fresh, boot_id=boot_id), f"the saved state cannot be read: {found.reason}"


class Notes:
    """Who is told without an answer: the recorder, the shells, the listing."""

    def __init__(
        self, state: State, recorder: Recorder, metadata: MetadataFiles, sessions: Sessions, listing: EngineListing
    ) -> None:
        self._state = state
        self._recorder = recorder
        self._metadata = metadata
        self._sessions = sessions
        self._listing = listing

    def record(self, line: Line) -> None:
        """Add a line to what is remembered for people, and log it."""
        self._recorder.record(line)
        if isinstance(line, EventLine):
            log.info(line.event_type, user=line.user, **line.details)

    def changed(self, container: ContainerId, engine_name: str) -> None:
        """Write its metadata anew, or remove them with it."""
        value = metadata_of(self._state, container)
        files = self._metadata
        self._recorder.do(lambda: files.remove(engine_name) if value is None else files.write(value))

    def cut_sessions(self, engine_id: EngineId) -> None:
        """Shut down every shell connection of this container."""
        if self._sessions.cut(engine_id):
            log.info("sessions.cut", engine_id=engine_id)

    def relist(self) -> None:
        """Ask the engine for a listing soon."""
        self._listing.ask()


#: How often memory is given back to the system; seconds.
TRIM_S = 60.0


async def give_memory_back() -> None:
    """Hand back what a storm of requests left behind: the collector and the C library keep it for ever otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU C library's own
    # What is there from the beginning stays; walked over no more, the rest is soon looked through.
    gc.collect()
    gc.freeze()
    while True:
        await asyncio.sleep(TRIM_S)
        # A broken connection leaves its requests and their tracebacks in a circle: 100 MB of them, seen after 500.
        gc.collect()
        if trim is not None:
            trim(0)


class Listening(NamedTuple):
    """A socket to serve on: `rpc` or `fd`."""

    name: str
    socket: socket.socket


def sockets(inherited: tuple[Inherited, ...], run: Path) -> list[Listening]:
    """The two doors, from systemd; made here where nobody handed them over."""
    found = [Listening(i.name, socket.socket(fileno=i.fd)) for i in inherited if i.name in {"rpc", "fd"}]
    for name, file in (("rpc", "ds01d.sock"), ("fd", "fd.sock")):
        if not any(listening.name == name for listening in found):
            path = run / file
            path.unlink(missing_ok=True)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            made.bind(str(path))
            path.chmod(0o666)
            made.listen(1024)
            found.append(Listening(name, made))
    return found
