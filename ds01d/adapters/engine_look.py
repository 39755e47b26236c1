"""One careful look at one container, as the proof that frees a slot needs it, and the processes that it holds on to.

The order matters: pidfds of the cgroup, the engine's inspect, the cgroup again, NVML last. Who was there before
an inspect that says "not running", and lives after it, runs without the engine's knowledge: a ghost.
"""

import asyncio
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ds01d.adapters.cgroups import Cgroups, Neighbours, container_path, path_of
from ds01d.adapters.docker import DockerEngine, EngineError, status_when_absent
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.docker_reading import InspectSeen, Unreadable
from ds01d.adapters.engine_slots import slot_seen
from ds01d.adapters.eyes import Poller
from ds01d.adapters.procfs import Procfs
from ds01d.core.effects import LookAt
from ds01d.model.facts import CgroupStatus, Engine, EngineStatus, Look, SlotSeen
from ds01d.model.ids import ContainerId, EngineId, OrderId
from ds01d.model.probe import Blind

#: A container may have many processes; a ghost is proved by any of them, and a new look follows every kill.
HELD_MAX: Final = 256
#: Seconds until killed processes must be gone; in the driver's teardown they may take that long.
GONE_S: Final = 3.0
#: How many containers may have held processes at once; beyond that the oldest are let go.
HOLDERS_MAX: Final = 64

_NOT_RUNNING: Final = (EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED)


class Ghosts:
    """Processes held by pidfds, one look's per container: a pidfd never comes to mean another process."""

    def __init__(self) -> None:
        self._held: dict[ContainerId, tuple[OrderId, list[int]]] = {}

    def keep(self, container: ContainerId, look: OrderId, pidfds: list[int]) -> None:
        """Hold these for a kill to come; what an earlier look of the container held is let go."""
        self.drop(container)
        if pidfds:
            self._held[container] = look, pidfds
        while len(self._held) > HOLDERS_MAX:
            self.drop(next(iter(self._held)))

    def drop(self, container: ContainerId) -> None:
        """Let go of what is held for a container."""
        _, pidfds = self._held.pop(container, (None, ()))
        _close(pidfds)

    async def kill(self, container: ContainerId, look: OrderId) -> bool | None:
        """SIGKILL to exactly those that this look held on to; whether they are gone. None: nothing is held for it."""
        kept, pidfds = self._held.pop(container, (None, list[int]()))
        if kept != look:
            _close(pidfds)
            return None
        try:
            for pidfd in pidfds:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return await asyncio.to_thread(_wait_for_end, pidfds)
        finally:
            _close(pidfds)

    def close(self) -> None:
        """Let go of all."""
        for container in tuple(self._held):
            self.drop(container)


class _Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine said in one look."""

    status: EngineStatus
    seen: InspectSeen | None = None
    trouble: str | None = None


class Looker:
    """Takes looks. Nothing is concluded here, and every trouble becomes a word in the look."""

    def __init__(
        self,
        *,
        engine: DockerEngine,
        process: EngineProcess,
        probe: Poller,
        cgroups: Cgroups,
        procfs: Procfs,
        ghosts: Ghosts,
    ) -> None:
        self._engine = engine
        self._process = process
        self._probe = probe
        self._cgroups = cgroups
        self._procfs = procfs
        self._ghosts = ghosts
        #: What the engine said of itself, and which process it was then.
        self._said: tuple[tuple[int, int], Engine] | None = None
        #: Which process is being asked now.
        self._asked: tuple[tuple[int, int] | None, asyncio.Future[Engine]] | None = None

    async def look(self, order: LookAt) -> Look:
        """Look at one container and at what is held for it; takes as long as its parts' own deadlines."""
        engine_id = order.engine_id
        if engine_id is None:
            # Never created as far as we know: only the engine can say which id, and so which cgroup, to look at.
            first = await self._inspect(order, order.name)
            if first.seen is None:
                return await self._finish(order, first, None, [])
            engine_id = first.seen.engine_id
        path = order.cgroup or await self._computed_path(order, engine_id)
        held = self._hold(path)
        try:
            inspected = await self._inspect(order, engine_id)
            living = _living(held) if inspected.status in _NOT_RUNNING else []
            kept = self._keep(order, living)
        finally:
            _close(held)
        return await self._finish(order, inspected, path, kept)

    async def _finish(self, order: LookAt, inspected: _Inspected, path: str | None, kept: list[int]) -> Look:
        status, seen, trouble = inspected.status, inspected.seen, inspected.trouble
        cgroup = CgroupStatus.UNKNOWN if path is None else cgroup_status(self._cgroups, path)
        if path is None and status is EngineStatus.ABSENT and order.engine_id is None:
            # It never had an id, so there never was a cgroup either.
            cgroup = CgroupStatus.EMPTY
        alive, running_path = None, None
        if status is EngineStatus.RUNNING and seen is not None:
            alive, running_path = self._init(seen)
            if running_path is not None and running_path != path:
                cgroup = cgroup_status(self._cgroups, running_path)
        slots: tuple[SlotSeen, ...] | None = None
        if order.slots:
            picture = await self._probe.poll()
            if isinstance(picture, Blind):
                trouble = "; ".join(filter(None, (trouble, f"cannot see the GPUs: {picture.reason}")))
            else:
                slots = tuple(slot_seen(picture, slot) for slot in order.slots)
        process = self._process.read()
        return Look(
            status=status,
            cgroup=cgroup,
            engine_id=seen.engine_id if seen is not None else order.engine_id,
            started_at=seen.started_at if seen is not None else 0.0,
            finished_at=seen.finished_at if seen is not None else 0.0,
            exit_code=seen.exit_code if seen is not None else None,
            engine_since=EngineProcess.since(process) if process is not None else 0.0,
            init_alive=alive,
            cgroup_path=running_path,
            ghost=bool(kept),
            slots=slots,
            trouble=trouble,
        )

    async def _computed_path(self, order: LookAt, engine_id: EngineId) -> str | None:
        try:
            driver = (await self._who()).cgroup_driver
        except (EngineError, Unreadable):
            return None
        return container_path(order.cgroup_parent, driver, engine_id)

    async def _who(self) -> Engine:
        """Which engine answers now. The same process has the same ID, so it is asked once in its life."""
        before = self._process.read()
        if self._said is not None and before is not None and before == self._said[0]:
            return self._said[1]
        asked = self._asked[1] if self._asked is not None and before == self._asked[0] else None
        if asked is None or asked.done() or before is None:
            asked = asyncio.ensure_future(self._engine.info())
            asked.add_done_callback(_heard)
            self._asked = before, asked
        # One question for all who found the same process: at start-up every container is looked at at once. Whoever
        # gives up waiting does not end it for the others.
        engine = await asyncio.shield(asked)
        self._said = (before, engine) if before is not None and before == self._process.read() else None
        return engine

    async def _inspect(self, order: LookAt, name_or_id: str) -> _Inspected:
        """Inspect between two questions who the engine is: one that was replaced meanwhile proves nothing."""
        try:
            before = await self._who()
            seen, status = None, EngineStatus.ABSENT
            try:
                seen = await self._engine.inspect(name_or_id)
                status = seen.status
            except EngineError as error:
                status = status_when_absent(error)
                if status is not EngineStatus.ABSENT:
                    raise
            after = before if status is EngineStatus.RUNNING else await self._who()
        except (EngineError, Unreadable) as error:
            return _Inspected(status=EngineStatus.SILENT, trouble=str(error))
        if before.name != after.name or order.engine not in (None, after.name):
            trouble = f"another engine answers ({after.name}) than the one that made it ({order.engine})"
            return _Inspected(status=EngineStatus.STRANGE, trouble=trouble)
        ours = seen is None or (seen.label_id == order.container and seen.label_key == order.key)
        if order.engine_id is None and not ours:
            return _Inspected(status=EngineStatus.ABSENT)
        return _Inspected(status=status, seen=seen)

    def _hold(self, path: str | None) -> list[int]:
        if path is None:
            return []
        try:
            pids = self._cgroups.members(path)
        except (OSError, ValueError):
            return []  # the cgroup's own status says that it could not be read
        # A pid may be another's by the time it is opened: only one that is in the cgroup afterwards, too, is ours.
        opened = {pid: pidfd for pid in pids[:HELD_MAX] if (pidfd := self._procfs.pidfd(pid)) is not None}
        try:
            still = set(self._cgroups.members(path))
        except (OSError, ValueError):
            still = set()
        _close([pidfd for pid, pidfd in opened.items() if pid not in still])
        return [pidfd for pid, pidfd in opened.items() if pid in still]

    def _keep(self, order: LookAt, living: list[int]) -> list[int]:
        kept = [os.dup(pidfd) for pidfd in living]
        self._ghosts.keep(order.container, order.order, kept)
        return kept

    def _init(self, seen: InspectSeen) -> tuple[bool | None, str | None]:
        """Whether the container's init lives, and in which cgroup."""
        if seen.pid == 0:
            return None, None  # between two rounds of a restart loop
        text = self._procfs.cgroup_text(seen.pid)
        if text is None or seen.engine_id not in text or has_ended(seen.pid):
            return False, None
        return True, path_of(text)


def _heard(asked: asyncio.Future[Engine]) -> None:
    if not asked.cancelled():
        asked.exception()  # whoever waits hears of it; where all have given up, nobody is warned


def cgroup_status(cgroups: Cgroups, path: str, neighbours: Neighbours | None = None) -> CgroupStatus:
    """Whether somebody lives in a cgroup or below it, as a word."""
    words: Mapping[bool | None, CgroupStatus] = {
        True: CgroupStatus.EMPTY,
        False: CgroupStatus.OCCUPIED,
        None: CgroupStatus.UNKNOWN,
    }
    return words[cgroups.empty(path, neighbours)]


def has_ended(pid: int) -> bool:
    """Whether a process has ended and only its entry is left."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return not _living([pidfd])
    finally:
        os.close(pidfd)


def _living(pidfds: Sequence[int], wait_s: float = 0.0) -> list[int]:
    """Those whose process has not ended; a pidfd becomes readable at the end, before anybody reaps."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    ended = {fd for fd, _ in poll.poll(wait_s * 1000)}
    return [pidfd for pidfd in pidfds if pidfd not in ended]


def _wait_for_end(pidfds: Sequence[int]) -> bool:
    """Block until all have ended; False: some did not within their time."""
    lives, end = list(pidfds), time.monotonic() + GONE_S
    while lives and (left := end - time.monotonic()) > 0:
        lives = _living(lives, left)
    return not lives


def _close(pidfds: Sequence[int]) -> None:
    for pidfd in pidfds:
        os.close(pidfd)
