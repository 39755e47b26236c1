"""Carries out the core's orders: each gets exactly one answer, at its deadline at the latest. It decides nothing.

An overdue call to the engine goes on without us; what came of it, only a look tells. An overdue write to a permission
may still land at any time, so its return is told too, however late.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Final, Protocol, assert_never

from msgspec.structs import replace

from ds01d.adapters.docker import (
    DockerEngine,
    EngineBroke,
    EngineLate,
    EngineRefused,
    EngineUnreachable,
    NameConflict,
)
from ds01d.adapters.docker_errors import directory_lost, directory_moved, permission_lags, readable, task_left_over
from ds01d.adapters.docker_images import EngineImages
from ds01d.adapters.docker_reading import Unreadable
from ds01d.adapters.engine_look import Ghosts, Looker
from ds01d.adapters.own_thread import begin
from ds01d.core.effects import (
    AnyOrder,
    CreateContainer,
    KillContainer,
    KillGhost,
    LookAt,
    Permit,
    RemoveContainer,
    StartContainer,
    StopContainer,
    Withdraw,
)
from ds01d.core.events import DIRECTORY_GONE, DIRECTORY_MOVED, Answer, Done, Failed, Looked, Uncertain
from ds01d.model.container import Mount
from ds01d.model.facts import CgroupStatus, EngineStatus, Look
from ds01d.model.ids import EngineId, SlotId
from ds01d.model.image import shown
from ds01d.model.permission import MountProof, Permission, SlotDevice

#: Seconds after a write of ours in which a start may meet the engine's older view of it: its cache follows inotify, and
#: on Docker 28.5 a fifth of the starts right after a first write found no device.
LAG_S: Final = 2.0
#: Seconds that a permission waits for what its directories are now, and how many do so at once.
LOOKING_S: Final = 2.0
LOOKING_MAX: Final = 8
#: How many writes are remembered for that.
WRITES_MAX: Final = 1024

_EngineOrder = CreateContainer | StartContainer | StopContainer | KillContainer | RemoveContainer
_PermissionOrder = Permit | Withdraw

#: 26.1 panics in each start when it came up without a watch on the specs, and never tries again to have one.
_HUNG_UP: Final = (
    "the engine hung up in the middle of the start\n"
    "if it does so at every start it has no inotify instance: an operator raises fs.inotify.max_user_instances with "
    "sysctl, and restarts docker"
)


class PermissionFiles(Protocol):
    """The grants and specs on disk; both calls block, and raise what the file system says."""

    def permit(self, permission: Permission) -> None:
        """Give; the same content is not written again."""

    def withdraw(self, key: str) -> None:
        """Take; what is not there is fine."""


class Directories(Protocol):
    """Users' directories, looked at where a dead file server holds nobody up."""

    async def device(self, mount: Mount) -> int | None:
        """The device number under which a directory is now; None: it is not there any more, or cannot be told."""


class Hands:
    """One coroutine per order. `device_map` gives the devices that each slot has at this moment."""

    def __init__(
        self,
        *,
        engine: DockerEngine,
        permissions: PermissionFiles,
        directories: Directories,
        looker: Looker,
        ghosts: Ghosts,
        device_map: Callable[[], Mapping[SlotId, SlotDevice]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._images = EngineImages(engine)
        self._permissions = permissions
        self._directories = directories
        self._looking = asyncio.Semaphore(LOOKING_MAX)
        #: Made a moment ago: their directories were looked at just then.
        self._new: set[EngineId] = set()
        self._looker = looker
        self._ghosts = ghosts
        self._device_map = device_map
        self._clock = clock
        #: A write that is not remembered may be the last daemon's, who died after it: so old it is at least.
        self._began = clock()
        self._written: dict[EngineId, float] = {}
        self._overdue: set[asyncio.Task[Answer]] = set()

    async def perform(self, order: AnyOrder, late: Callable[[Answer], None]) -> Answer:
        """Carry one order out. `late` is called once more after an uncertain answer to a permit or a withdrawal."""
        match order:
            case CreateContainer() | StartContainer() | StopContainer() | KillContainer() | RemoveContainer():
                return await self._on_time(order, self._engine_order(order))
            case Permit() | Withdraw():
                return await self._permission_order(order, late)
            case LookAt():
                return await self._look(order)
            case KillGhost():
                return await self._kill_ghost(order)
            case _:
                assert_never(order)

    async def close(self) -> None:
        """Let go of what is overdue: the engine goes on with it, and the next start-up looks."""
        for task in self._overdue:
            task.cancel()
        await asyncio.gather(*self._overdue, return_exceptions=True)
        self._ghosts.close()

    # --- the engine

    async def _on_time(self, order: _EngineOrder, call: Coroutine[None, None, Answer]) -> Answer:
        task = asyncio.create_task(call, name=f"{type(order).__name__} {order.container}")
        done, _ = await asyncio.wait([task], timeout=order.timeout_s)
        if done:
            return task.result()
        self._overdue.add(task)
        task.add_done_callback(self._forget)
        message = f"the engine did not answer within {order.timeout_s:g} s"
        return Uncertain(container=order.container, order=order.order, message=message)

    def _forget(self, task: "asyncio.Task[Answer]") -> None:
        self._overdue.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody warns of it: the core has looked for itself long ago

    async def _engine_order(self, order: _EngineOrder) -> Answer:
        engine_id: EngineId | None = None
        recent = isinstance(order, StartContainer) and self._write_age_s(order.engine_id) < LAG_S
        try:
            match order:
                case CreateContainer():
                    engine_id = await self._engine.create(order)
                    self._new.add(engine_id)
                case StartContainer():
                    await self._engine.start(order.engine_id)
                case StopContainer():
                    await self._engine.stop(order.engine_id, order.grace_s)
                case KillContainer():
                    await self._engine.kill(order.engine_id)
                case RemoveContainer():
                    await self._remove(order)
                case _:
                    assert_never(order)
        except EngineRefused as refused:
            return await self._refused(order, refused, recent=recent)
        except NameConflict as conflict:
            return _name_taken(order, conflict)
        except EngineUnreachable as error:
            hint = "systemctl status docker tells an operator why"
            return _failed(order, error.message, kind="engine_down", hint=hint)
        except (EngineBroke, EngineLate) as error:
            message = _HUNG_UP if isinstance(order, StartContainer) else error.message
            return Uncertain(container=order.container, order=order.order, message=message, returned=True)
        except Unreadable as error:
            return Uncertain(container=order.container, order=order.order, message=str(error), returned=True)
        return Done(container=order.container, order=order.order, engine_id=engine_id)

    async def _remove(self, order: RemoveContainer) -> None:
        if await self._engine.remove(order.engine_id) or order.engine is None:
            return
        here = (await self._engine.info()).name
        if here != order.engine:
            raise EngineUnreachable(f"another engine answers ({here}) than the one that made it ({order.engine})")

    async def _refused(self, order: _EngineOrder, refused: EngineRefused, *, recent: bool) -> Failed:
        if isinstance(order, CreateContainer) and refused.absent and "image" in refused.message.lower():
            return await self._no_image(order)
        if isinstance(order, StartContainer) and task_left_over(refused.message):
            hint = "the engine died in an earlier start and left this behind: if it stays, systemctl restart containerd"
            return _failed(order, readable(refused.message), hint=hint, again=True)
        if isinstance(order, StartContainer) and (lost := directory_lost(refused.message)) is not None:
            kind = DIRECTORY_MOVED if directory_moved(refused.message) else DIRECTORY_GONE
            return _failed(order, lost, kind=kind)
        again = recent and permission_lags(refused.message)
        return _failed(order, readable(refused.message), again=again)

    async def _no_image(self, order: CreateContainer) -> Failed:
        near = await self._images.nearest(order.spec.image, order.uid)
        return Failed(
            container=order.container,
            order=order.order,
            kind="image_not_found",
            message=f"cannot find the image {shown(order.spec.image)} on this machine",
            hint=f"the nearest names are {', '.join(near)}" if near else "an operator can add it with `docker pull`",
        )

    # --- permissions

    async def _permission_order(self, order: _PermissionOrder, late: Callable[[Answer], None]) -> Answer:
        if isinstance(order, Permit):
            order = await self._as_mounted_now(order, late)
        try:
            work = self._permission_work(order)
        except LookupError as error:
            return _failed(order, str(error.args[0]), kind="disk")
        returned = begin(work, f"permission {order.container}")
        try:
            await asyncio.wait([returned], timeout=order.timeout_s)
        except asyncio.CancelledError:
            # The runner gave us up, after a stall of the whole daemon for instance: only this return settles the order.
            returned.add_done_callback(lambda future: self._late(order, future, late))
            raise
        if isinstance(order, Permit):
            self._remember_write(order.engine_id)
        if returned.done():
            return _written(order, returned)
        returned.add_done_callback(lambda future: self._late(order, future, late))
        message = f"the disk did not take the permission within {order.timeout_s:g} s"
        return Uncertain(container=order.container, order=order.order, message=message)

    async def _as_mounted_now(self, order: Permit, late: Callable[[Answer], None]) -> Permit:
        """The order with the device numbers that its directories have today; what cannot be told stays as it was."""
        if order.engine_id in self._new:
            self._new.discard(order.engine_id)
            return order
        try:
            async with self._looking, asyncio.timeout(LOOKING_S):
                now = [await self._directories.device(m) for m in order.mounts]
        except TimeoutError:
            return order
        except asyncio.CancelledError:
            # Called off before anything was written: that is certain, and settles the order.
            words = "cannot look at its directories: their file system does not answer"
            asyncio.get_running_loop().call_soon(late, _failed(order, words, kind="disk"))
            raise
        mounts = [m if d is None else replace(m, device=d) for m, d in zip(order.mounts, now, strict=True)]
        return replace(order, mounts=tuple(mounts))

    def _late(self, order: _PermissionOrder, future: "asyncio.Future[None]", late: Callable[[Answer], None]) -> None:
        if isinstance(order, Permit):
            self._remember_write(order.engine_id)
        if not future.cancelled():
            late(_written(order, future))

    def _permission_work(self, order: _PermissionOrder) -> Callable[[], None]:
        if isinstance(order, Withdraw):
            return lambda: self._permissions.withdraw(order.key)
        devices = self._device_map()
        missing = [slot for slot in order.slots if slot not in devices]
        if missing:
            raise LookupError(f"cannot give {', '.join(missing)}: the driver does not show it now")
        permission = Permission(
            key=order.key,
            container_id=order.engine_id,
            generation=order.generation,
            uid=order.uid,
            gid=order.gid,
            slots=tuple(devices[slot] for slot in order.slots),
            mounts=tuple(MountProof(dev=m.device, inode=m.inode, target=m.target) for m in order.mounts),
        )
        return lambda: self._permissions.permit(permission)

    def _remember_write(self, engine_id: EngineId) -> None:
        self._written.pop(engine_id, None)
        self._written[engine_id] = self._clock()
        while len(self._written) > WRITES_MAX:
            del self._written[next(iter(self._written))]

    def _write_age_s(self, engine_id: EngineId) -> float:
        return self._clock() - self._written.get(engine_id, self._began)

    # --- looks

    async def _look(self, order: LookAt) -> Answer:
        try:
            async with asyncio.timeout(order.timeout_s):
                look = await self._looker.look(order)
        except TimeoutError:
            trouble = f"the engine or the driver told nothing within {order.timeout_s:g} s"
            look = Look(status=EngineStatus.SILENT, cgroup=CgroupStatus.UNKNOWN, trouble=trouble)
        return Looked(container=order.container, order=order.order, look=look)

    async def _kill_ghost(self, order: KillGhost) -> Answer:
        gone = await self._ghosts.kill(order.container, order.look)
        if gone is None:
            return _failed(order, "cannot end what that look found: it is held no more; look again", again=True)
        if not gone:
            return _failed(order, "cannot end the processes that the engine lost: they do not die of SIGKILL")
        return Done(container=order.container, order=order.order)


def _written(order: _PermissionOrder, returned: "asyncio.Future[None]") -> Done | Failed:
    verb = "write" if isinstance(order, Permit) else "remove"
    match returned.exception():
        case None:
            return Done(container=order.container, order=order.order)
        case OSError() as error:
            return _failed(order, f"cannot {verb} the permission: {error.strerror or error}", kind="disk")
        case error:
            return _failed(order, f"cannot {verb} the permission: {error}", kind="disk")


def _failed(order: AnyOrder, message: str, *, kind: str = "engine", hint: str = "", again: bool = False) -> Failed:
    return Failed(container=order.container, order=order.order, kind=kind, message=message, hint=hint, again=again)


def _name_taken(order: AnyOrder, conflict: NameConflict) -> Failed:
    short = conflict.holder.engine_id[:12]
    hint = f"choose another name, or ask an operator what {short} is (docker inspect {short})"
    return _failed(order, conflict.message, kind="name_taken", hint=hint)
