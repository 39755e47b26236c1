"""What the engine lists, every half minute and on request: where to look, never a proof.

A listing says nothing of GPUs, so each container is inspected once and what it names is remembered.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from ds01d.adapters.attribution import Attribution
from ds01d.adapters.cgroups import Cgroups, Neighbours, container_path
from ds01d.adapters.docker import DockerEngine, EngineError
from ds01d.adapters.docker_document import DRIVER_DEVICE, gpu_device
from ds01d.adapters.docker_reading import InspectSeen, Unreadable
from ds01d.adapters.engine_look import cgroup_status
from ds01d.adapters.own_thread import begin
from ds01d.core.events import Event, Relisted
from ds01d.model.facts import CgroupStatus, EngineStatus, ForeignContainer, Listed
from ds01d.model.ids import EngineId, Key
from ds01d.model.permission import PermissionSeen

INTERVAL_S: Final = 30.0
#: Not more often than this, however often it is asked for.
GAP_S: Final = 0.2
#: An inspect hangs while an OCI hook does; a listing waits no longer for one, and asks again the next time.
INSPECT_S: Final = 1.0
INSPECTS_AT_ONCE: Final = 8
PERMISSIONS_S: Final = 5.0


class Listing(NamedTuple):
    """Everything on the engine at one moment."""

    containers: tuple[Listed, ...]
    foreign: tuple[ForeignContainer, ...]


class _Known(msgspec.Struct, frozen=True):
    """What never changes about a container after its create."""

    gpus: tuple[str, ...]
    cgroup_parent: str
    looks_ours: bool


class EngineListing:
    """Lists and posts; `permissions` reads what is on disk and `revision` is the state's, read before each listing."""

    def __init__(
        self,
        engine: DockerEngine,
        *,
        cgroups: Cgroups,
        permissions: Callable[[], tuple[PermissionSeen, ...]],
        post: Callable[[Event], None],
        revision: Callable[[], int],
        interval_s: float = INTERVAL_S,
        attribution: Attribution | None = None,
    ) -> None:
        self._engine = engine
        self._attribution = attribution
        self._cgroups = cgroups
        self._permissions = permissions
        self._post = post
        self._revision = revision
        self._interval_s = interval_s
        self._asked = asyncio.Event()
        self._known: dict[EngineId, _Known] = {}
        self._driver = ""

    def ask(self) -> None:
        """List soon, instead of at the next interval."""
        self._asked.set()

    async def run(self) -> None:
        """List whenever asked, and at every interval; an engine that does not answer is the event stream's matter."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            with suppress(EngineError, Unreadable):
                self._post(await self.relisted())
            await asyncio.sleep(GAP_S)

    async def relisted(self) -> Relisted:
        """All that there is now, held against a revision from before; raises when the engine does not answer."""
        revision = self._revision()
        listing, permissions = await asyncio.gather(self.read(), self._on_disk())
        return Relisted(
            revision=revision, containers=listing.containers, foreign=listing.foreign, permissions=permissions
        )

    async def read(self) -> Listing:
        """List once; raises when the engine does not answer."""
        rows = await self._engine.listing()
        if not self._driver:
            self._driver = (await self._engine.info()).cgroup_driver
        here = {row.engine_id for row, _ in rows}
        self._known = {engine_id: known for engine_id, known in self._known.items() if engine_id in here}
        await self._meet([row.engine_id for row, _ in rows if row.engine_id not in self._known])
        # Of the running ones, too: an empty cgroup there tells of a shell that holds the engine's die event back.
        cgroups = await asyncio.to_thread(self._cgroup_statuses, [row.engine_id for row, _ in rows])
        if self._attribution is not None:
            running = [row.engine_id for row, _ in rows if row.status is EngineStatus.RUNNING]
            await asyncio.to_thread(self._attribution.look, self._paths_of_foreign(running))
        containers = tuple(msgspec.structs.replace(row, cgroup=cgroups[row.engine_id]) for row, _ in rows)
        labels = {row.engine_id: labels for row, labels in rows}
        foreign = tuple(
            _foreign(row, labels[row.engine_id], known.gpus, self._attribution)
            for row in containers
            if (known := self._known.get(row.engine_id)) is not None and not known.looks_ours
        )
        return Listing(containers, foreign)

    async def _meet(self, engine_ids: list[EngineId]) -> None:
        """Inspect those seen for the first time; one that does not answer is met at the next listing."""
        free = asyncio.Semaphore(INSPECTS_AT_ONCE)

        async def meet(engine_id: EngineId) -> None:
            async with free:
                try:
                    seen = await self._engine.inspect(engine_id, INSPECT_S)
                except (EngineError, Unreadable):
                    return
            self._known[engine_id] = _Known(seen.gpus, seen.cgroup_parent, looks_ours(seen))

        await asyncio.gather(*map(meet, engine_ids))

    def _paths_of_foreign(self, engine_ids: list[EngineId]) -> dict[EngineId, str]:
        """The cgroups of those that are not ours and name a GPU."""
        found = {}
        for engine_id in engine_ids:
            known = self._known.get(engine_id)
            if known is not None and known.gpus and not known.looks_ours:
                path = container_path(known.cgroup_parent, self._driver, engine_id)
                if path is not None:
                    found[engine_id] = path
        return found

    def _cgroup_statuses(self, engine_ids: list[EngineId]) -> dict[EngineId, CgroupStatus]:
        found, neighbours = dict.fromkeys(engine_ids, CgroupStatus.UNKNOWN), Neighbours()
        for engine_id in engine_ids:
            known = self._known.get(engine_id)
            path = None if known is None else container_path(known.cgroup_parent, self._driver, engine_id)
            if path is not None:
                found[engine_id] = cgroup_status(self._cgroups, path, neighbours)
        return found

    async def _on_disk(self) -> tuple[PermissionSeen, ...] | None:
        reading = begin(self._permissions, "permissions on disk")
        await asyncio.wait([reading], timeout=PERMISSIONS_S)
        return reading.result() if reading.done() and reading.exception() is None else None


def looks_ours(seen: InspectSeen) -> bool:
    """Whether it is what we would have made: our labels, and no GPU but through its own key. No proof of it."""
    if seen.label_id is None or seen.label_key is None:
        return False
    return set(seen.gpus) <= {gpu_device(Key(seen.label_key)), DRIVER_DEVICE}


def origin_of(name: str, labels: Mapping[str, str]) -> str:
    """Which tool made a container that is not ours; the surest sign first."""
    if any(label.startswith("devcontainer.") for label in labels):
        return "devcontainer"
    if "com.docker.compose.project" in labels:
        return "compose"
    if name.startswith("vsc-"):
        return "devcontainer"
    if any(label.startswith("aime.mlc") for label in labels):
        return "aime"
    return "raw-docker"


def _foreign(
    row: Listed, labels: Mapping[str, str], gpus: tuple[str, ...], attribution: Attribution | None
) -> ForeignContainer:
    return ForeignContainer(
        engine_id=row.engine_id,
        name=row.name,
        origin=origin_of(row.name, labels),
        user=attribution.user(row.engine_id, row.name, labels) if attribution is not None else None,
        status=row.status,
        cgroup=row.cgroup,
        gpus=gpus,
    )
