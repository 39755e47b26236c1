"""Looks at the GPUs: polls the NVML child, says whose each process is, and keeps the devices behind the slots.

Processes of the system's own GPU services are left out here, once, for the inventory and for every proof alike.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from ds01d.adapters.procfs import Process, Procfs
from ds01d.core.events import Blinded, Event, Probed
from ds01d.model.facts import GpuProcess
from ds01d.model.gpu import slot_id
from ds01d.model.ids import EngineId, GpuUuid, SlotId, Uid
from ds01d.model.permission import SlotDevice
from ds01d.model.probe import Blind, GpuSeen, Picture

#: Slots are given by a picture that is younger than so many polls.
POLLS_GOOD: Final = 2
#: A request waits so long (seconds) for one, and looks are so far apart meanwhile.
FRESH_WAIT_S: Final = 5.0
AGAIN_S: Final = 0.5

#: The processes on one picture; None: it was gone when it was read.
_Met = dict[int, Process | None]


class Poller(Protocol):
    """Whoever can look at the driver now."""

    async def poll(self) -> Picture | Blind:
        """Look; the answer began after the call."""
        ...


class Eyes:
    """The probe's pictures without the system's own services; `name_of` gives a uid's name where it is known."""

    def __init__(
        self,
        probe: Poller,
        procfs: Procfs,
        *,
        post: Callable[[Event], None],
        name_of: Callable[[Uid], str | None],
        interval_s: float,
    ) -> None:
        self._probe = probe
        self._procfs = procfs
        self._post = post
        self._name_of = name_of
        self._interval_s = interval_s
        self._devices: dict[SlotId, SlotDevice] = {}
        #: When the last good picture was posted, by the event loop's clock.
        self._posted_at: float | None = None
        self._waiting = 0
        self._wanted, self._came = asyncio.Event(), asyncio.Event()

    @property
    def devices(self) -> Mapping[SlotId, SlotDevice]:
        """What stands behind each slot at this moment."""
        return self._devices

    async def run(self) -> None:
        """Post a picture at each interval, and at once where somebody waits for one, until cancelled."""
        while True:
            pause_s = min(AGAIN_S, self._interval_s) if self._waiting else self._interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.observe()

    async def fresh(self) -> None:
        """Return when there is a picture to give slots by, or when it was waited for long enough."""
        if self._young():
            return
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(FRESH_WAIT_S):
                while not self._young():
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            pass  # whoever decides says that the GPUs cannot be seen, and why
        finally:
            self._waiting -= 1

    def _young(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._posted_at is not None and now - self._posted_at < POLLS_GOOD * self._interval_s

    async def observe(self) -> None:
        """Look once, and post what was seen."""
        met: _Met = {}
        picture = await self._look(met)
        if isinstance(picture, Blind):
            self._blinded(picture)
        else:
            processes = tuple(self._attributed(picture, met))
            self._post(Probed(picture=picture, processes=processes, good_for_s=POLLS_GOOD * self._interval_s))
            self._posted_at = asyncio.get_running_loop().time()
            self._came.set()

    async def poll(self) -> Picture | Blind:
        """A picture that was begun after this call; that there is none is posted too, and `run` looks again at once.

        It may only be the next in line, and with a driver that hangs hear of it half a minute later.
        """
        picture = await self._look({})
        if isinstance(picture, Blind):
            self._blinded(picture)
            self._wanted.set()
        return picture

    def _blinded(self, blind: Blind) -> None:
        self._post(Blinded(reason=blind.reason))
        self._posted_at = None

    async def _look(self, met: _Met) -> Picture | Blind:
        """A picture; each process on it is read once, and `met` is given what was read."""
        picture = await self._probe.poll()
        if isinstance(picture, Blind):
            return picture
        self._devices = dict(_devices(picture))
        return msgspec.structs.replace(picture, gpus=tuple(self._without_services(gpu, met) for gpu in picture.gpus))

    def _without_services(self, gpu: GpuSeen, met: _Met) -> GpuSeen:
        if not gpu.processes:
            return gpu
        theirs = tuple(p for p in gpu.processes if not self._is_service(p.pid, met))
        return gpu if len(theirs) == len(gpu.processes) else msgspec.structs.replace(gpu, processes=theirs)

    def _is_service(self, pid: int, met: _Met) -> bool:
        if pid not in met:
            met[pid] = self._procfs.process(pid)
        process = met[pid]
        return process is not None and self._procfs.infrastructure(process)

    def _attributed(self, picture: Picture, met: _Met) -> list[GpuProcess]:
        found: list[GpuProcess] = []
        for gpu in picture.gpus:
            for seen in gpu.processes or ():
                process = met[seen.pid]
                found.append(
                    GpuProcess(
                        gpu=GpuUuid(gpu.uuid),
                        gi=seen.gi,
                        pid=seen.pid,
                        start_time=process.start_time if process is not None else 0,
                        uid=process.uid if process is not None else None,
                        user=self._name_of(process.uid) if process is not None else None,
                        container=_container(process),
                        used_mib=seen.used_mib,
                        command=process.command if process is not None else "",
                    )
                )
        return found


def _container(process: Process | None) -> EngineId | None:
    return process.container.id if process is not None and process.container is not None else None


def _devices(picture: Picture) -> list[tuple[SlotId, SlotDevice]]:
    found: list[tuple[SlotId, SlotDevice]] = []
    for gpu in picture.gpus:
        if gpu.lost or gpu.trouble is not None:
            continue
        uuid = GpuUuid(gpu.uuid)
        if not gpu.mig:
            sid = slot_id(uuid)
            found.append((sid, SlotDevice(name=sid, uuid=uuid, minor=gpu.minor, gpu_index=gpu.index)))
        for piece in gpu.slices if gpu.mig else ():
            sid = slot_id(uuid, piece.profile, piece.start)
            device = SlotDevice(name=sid, uuid=uuid, minor=gpu.minor, gpu_index=gpu.index, gi=piece.gi, ci=piece.ci)
            found.append((sid, device))
    return found
