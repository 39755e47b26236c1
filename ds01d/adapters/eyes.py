"""Looks at the GPUs: polls the NVML child, says whose each process is, and keeps the devices behind the slots.

Processes of the system's own GPU services are left out here, once, for the inventory and for every proof alike.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from ds01d.adapters.nvml.probe import Probe
from ds01d.adapters.procfs import Process, Procfs
from ds01d.core.events import Blinded, Event, Probed
from ds01d.model.facts import GpuProcess
from ds01d.model.gpu import slot_id
from ds01d.model.ids import EngineId, GpuUuid, SlotId, Uid
from ds01d.model.permission import SlotDevice
from ds01d.model.probe import Blind, GpuSeen, Picture


class Eyes:
    """The probe's pictures without the system's own services; `name_of` gives a uid's name where it is known."""

    def __init__(
        self,
        probe: Probe,
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

    @property
    def devices(self) -> Mapping[SlotId, SlotDevice]:
        """What stands behind each slot at this moment."""
        return self._devices

    async def run(self) -> None:
        """Post a picture at each interval, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.observe()

    async def observe(self) -> None:
        """Look once, and post what was seen."""
        picture = await self.poll()
        if isinstance(picture, Blind):
            self._post(Blinded(reason=picture.reason))
        else:
            self._post(Probed(picture=picture, processes=tuple(self._attributed(picture))))

    async def poll(self) -> Picture | Blind:
        """A picture that was begun after this call."""
        picture = await self._probe.poll()
        if isinstance(picture, Blind):
            return picture
        self._devices = dict(_devices(picture))
        return msgspec.structs.replace(picture, gpus=tuple(self._without_services(gpu) for gpu in picture.gpus))

    def _without_services(self, gpu: GpuSeen) -> GpuSeen:
        if not gpu.processes:
            return gpu
        theirs = tuple(p for p in gpu.processes if not self._is_service(p.pid))
        return gpu if len(theirs) == len(gpu.processes) else msgspec.structs.replace(gpu, processes=theirs)

    def _is_service(self, pid: int) -> bool:
        process = self._procfs.process(pid)
        return process is not None and self._procfs.infrastructure(process)

    def _attributed(self, picture: Picture) -> list[GpuProcess]:
        found: list[GpuProcess] = []
        for gpu in picture.gpus:
            for seen in gpu.processes or ():
                process = self._procfs.process(seen.pid)
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
