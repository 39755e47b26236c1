"""The composition root: builds the parts, joins them, answers signals, and tells systemd. Knows no rule.

Start-up: lock, configuration, state file; then the eyes and the engine; then the ledger is held against what there is.
Ready only when every record has been looked at and every permission is whole; clients queue at systemd's sockets
meanwhile. What does not answer by then is shown as stale, and holds nobody up.
"""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

import msgspec

from ds01d import __version__
from ds01d.adapters.accounts import Accounts
from ds01d.adapters.attribution import Attribution
from ds01d.adapters.cdi import Permissions
from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.clock import Clock
from ds01d.adapters.config_files import BadConfig, ConfigFiles, LoadedSettings
from ds01d.adapters.docker import DockerEngine, EngineError
from ds01d.adapters.docker_events import EngineEvents
from ds01d.adapters.docker_images import EngineImages
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.docker_reading import Unreadable
from ds01d.adapters.engine_listing import EngineListing, Listing
from ds01d.adapters.engine_look import Ghosts, Looker
from ds01d.adapters.eyes import Eyes
from ds01d.adapters.hands import Hands
from ds01d.adapters.metadata import MetadataFiles
from ds01d.adapters.nvml.probe import Probe
from ds01d.adapters.paths import Paths
from ds01d.adapters.policies import Policies
from ds01d.adapters.procfs import Procfs, container_of
from ds01d.adapters.recorder import Recorder
from ds01d.adapters.sessions import Sessions
from ds01d.adapters.store import StateFileError, Store
from ds01d.adapters.systemd import Inherited, Notifier, inherited
from ds01d.api import peer
from ds01d.api.desk import Desk
from ds01d.api.methods import METHODS
from ds01d.api.rpc import Rpc
from ds01d.api.server import Server
from ds01d.api.shells import ShellDoor
from ds01d.api.throttle import Limits, Throttle
from ds01d.app.joints import Notes, Places, StateSaver, give_memory_back, recalled_state, sockets
from ds01d.core.events import (
    ConfigLoaded,
    CreateRequested,
    EngineHinted,
    Event,
    RealityObserved,
    Request,
    ShellsLeft,
    StartRequested,
)
from ds01d.logs import configure, log
from ds01d.loop.loop import Loop
from ds01d.loop.runner import Runner
from ds01d.model.complaint import in_brief
from ds01d.model.facts import Engine
from ds01d.model.ids import EngineId
from ds01d.model.policy import Policy

#: Seconds that start-up waits for the engine, for a picture of the GPUs, and for every record to be looked at.
ENGINE_WAIT_S = 5.0
PICTURE_WAIT_S = 8.0
REVIEW_WAIT_S = 15.0
#: How often wall time is compared with the steady clock; seconds.
CLOCK_S = 60.0


class Daemon:
    """All parts, joined. `run` ends when it is told to stop, or loudly when one of the long-lived parts dies."""

    def __init__(
        self, places: Places, loaded: LoadedSettings, policies: Policies, accounts: Accounts, store: Store
    ) -> None:
        settings = loaded.settings
        self._places = places
        self._policies = policies
        self._accounts = accounts
        self._notifier = Notifier()
        self._clock = Clock()
        self._procfs = Procfs()
        readers = partial(accounts.find_group_id, peer.OPERATORS)
        self._recorder = Recorder(places.log, readers=readers)
        self._boot_id = self._procfs.boot_id()
        self._state, self._recovering = recalled_state(store.load(), self._boot_id)
        self._state.policy = policies.current
        self._state.settings_complaint = in_brief(loaded.complaints)
        self._engine = DockerEngine(Path(settings.engine_address.removeprefix("unix://")), init=places.init)
        self._permissions = Permissions(
            grant_dir=places.run / "grant", cdi_dir=places.cdi, guard=places.guard, vendor_dirs=places.vendor_cdi
        )
        self._probe = Probe()
        self._eyes = Eyes(
            self._probe,
            self._procfs,
            post=self._post,
            name_of=self._accounts.name_of,
            interval_s=settings.intervals.nvml,
        )
        self._process = process = EngineProcess(procfs=self._procfs)
        self._cgroups, ghosts = Cgroups(), Ghosts()
        self._paths = Paths()
        self._hands = Hands(
            engine=self._engine,
            permissions=self._permissions,
            directories=self._paths,
            looker=Looker(
                engine=self._engine,
                probe=self._eyes,
                cgroups=self._cgroups,
                procfs=self._procfs,
                ghosts=ghosts,
                process=process,
            ),
            ghosts=ghosts,
            device_map=lambda: self._eyes.devices,
        )
        self._runner = Runner(self._hands)
        self._sessions = Sessions(self._engine, self._notifier, self._procfs, self._shells_left, self._init_ended)
        self._listing = EngineListing(
            self._engine,
            cgroups=self._cgroups,
            permissions=self._permissions.seen,
            post=self._post,
            revision=lambda: self._state.revision,
            interval_s=settings.intervals.listing,
            attribution=Attribution(self._procfs, self._cgroups, accounts.name_of),
        )
        self._events = EngineEvents(self._engine, post=self._post, reconnected=self._listing.ask, process=process)
        metadata = MetadataFiles(places.state / "container-metadata", readers=readers)
        names = frozenset(c.engine_name for c in self._state.containers if not c.stray)
        self._recorder.do(lambda: metadata.keep_only(names))
        self._loop = Loop(
            self._state,
            clock=self._clock,
            saver=StateSaver(store),
            runner=self._runner,
            notes=Notes(self._state, self._recorder, metadata, self._sessions, self._listing),
            turned=self._notifier.watchdog,
            prepare=self._look_first,
        )
        self._loop.recovering = self._recovering
        self._server, self._shell_door = self._doors()

    def _doors(self) -> tuple[Server, ShellDoor]:
        limits = Limits()
        desk = Desk(
            mind=self._loop,
            accounts=self._accounts,
            paths=self._paths,
            images=EngineImages(self._engine),
            sessions=self._sessions,
            chronicle=self._recorder,
        )
        requests, shells = Throttle(limits, self._clock.now), Throttle(limits, self._clock.now)
        identify = partial(peer.identify, accounts=self._accounts, in_container=self._in_container)
        rpc = Rpc(desk, METHODS, limits, requests)
        server = Server(rpc=rpc, identify=identify, throttle=requests, limits=limits)
        return server, ShellDoor(sessions=self._sessions, identify=identify, throttle=shells)

    def _post(self, event: Event) -> None:
        self._loop.post(event)

    async def _look_first(self, request: Request) -> None:
        """Slots are given by what is seen now."""
        match request:
            case CreateRequested(spec=spec):
                wants = spec.gpus is not None
            case StartRequested(container=container):
                c = self._state.containers.get(container)
                wants = c is not None and c.wants_gpu and self._state.allocation_of(container) is None
            case _:
                wants = False
        if wants:
            await self._eyes.fresh()

    def _shells_left(self, engine_id: EngineId) -> None:
        """Nobody lives there through a shell any more: the container stops, unless something else runs in it."""
        c = self._state.containers.one("engine_id", engine_id)
        if c is None or c.cgroup is None:
            return
        try:
            alone = len(self._cgroups.members(c.cgroup)) <= 1
        except (OSError, ValueError):
            return
        if alone:
            self._post(ShellsLeft(engine_id=engine_id))

    def _init_ended(self, engine_id: EngineId) -> None:
        """A container with shells has ended, and the engine may keep that to itself: a look tells."""
        self._post(EngineHinted(engine_id=engine_id, action="die", at=self._clock.now()))

    def _in_container(self, pid: int) -> bool | None:
        text = self._procfs.cgroup_text(pid)
        return None if text is None else container_of(text) is not None

    # ---- a life

    async def run(self, inherited: tuple[Inherited, ...]) -> None:
        """Start, serve until told to stop, and leave everything as the next daemon wants to find it."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._policies.ask)
        async with asyncio.TaskGroup() as parts:
            running = [self._begin(parts, "loop", self._loop.run())]
            await self._reconcile(inherited)
            running += [
                self._begin(parts, "engine-events", self._events.run()),
                self._begin(parts, "engine-listing", self._listing.run()),
                self._begin(parts, "eyes", self._eyes.run()),
                self._begin(parts, "policies", self._policies.run(self._govern)),
                self._begin(parts, "paths", self._paths.run()),
                self._begin(parts, "clock", self._follow_clock()),
                self._begin(parts, "memory", give_memory_back()),
            ]
            for listening in sockets(inherited, self._places.run):
                if listening.name == "rpc":
                    await self._server.serve(listening.socket)
                else:
                    running.append(self._begin(parts, "shell-door", self._shell_door.serve(listening.socket)))
            self._notifier.ready(f"{len(self._state.containers)} containers, {len(self._state.slots)} slots")
            log.info("daemon.ready", version=__version__, containers=len(self._state.containers))
            await stopping.wait()
            self._notifier.stopping()
            log.info("daemon.stopping")
            await self._server.close()
            for task in running:
                task.cancel()
        await self._close()

    def _begin(self, parts: asyncio.TaskGroup, name: str, part: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        return parts.create_task(part, name=name)

    async def _close(self) -> None:
        await self._runner.close()
        await self._hands.close()
        await self._sessions.close()
        await self._probe.close()
        await self._engine.close()
        self._recorder.close()

    # ---- start-up

    async def _reconcile(self, inherited: tuple[Inherited, ...]) -> None:
        """Hold the ledger against what there is, and wait until every record was looked at."""
        await self._probe.start()
        self._permissions.write_driver_spec()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PICTURE_WAIT_S):
                await self._eyes.observe()
        engine, listing = await self._meet_engine()
        self._post(
            RealityObserved(
                boot_id=self._boot_id,
                engine=engine,
                listed=listing.containers,
                foreign=listing.foreign,
                permissions=self._permissions.seen(),
            )
        )
        await self._sessions.restore(inherited)
        # While nothing may be changed nobody looks either.
        waits = engine is not None and self._recovering is None
        if waits and not await self._loop.reviewed(REVIEW_WAIT_S):
            log.warning("startup.unreviewed", after_s=REVIEW_WAIT_S, do="ds01ctl status shows what is waited for")

    async def _meet_engine(self) -> tuple[Engine | None, Listing]:
        """The engine and what it has; it may still be starting, and may stay silent."""
        try:
            async with asyncio.timeout(ENGINE_WAIT_S):
                while True:
                    try:
                        engine, process = await self._engine.info(), self._process.read()
                        since = 0.0 if process is None else EngineProcess.since(process)
                        return msgspec.structs.replace(engine, since=since), await self._listing.read()
                    except (EngineError, Unreadable) as trouble:
                        log.info("engine.awaited", trouble=str(trouble))
                        await asyncio.sleep(0.2)
        except TimeoutError:
            log.warning("engine.silent", do="systemctl status docker", waited_s=ENGINE_WAIT_S)
            return None, Listing((), ())

    async def _follow_clock(self) -> None:
        """Wall time may be set; deadlines follow it, a minute late at most."""
        while True:
            await asyncio.sleep(CLOCK_S)
            if jumped := self._clock.follow():
                log.warning("clock.jumped", seconds=round(jumped, 3))

    def _govern(self, policy: Policy) -> None:
        self._post(ConfigLoaded(policy=policy))


#: It will not start the next time either: systemd does not try again (packaging/systemd/ds01d.service).
EXIT_HOPELESS = 78


def main() -> int:
    """Start, run, and say with which exit code it ended."""
    configure()
    places = Places()
    handed = inherited()
    store = Store(places.state)
    accounts = Accounts()
    files = ConfigFiles(etc=places.etc, last_good=places.state / "config-last-good")
    try:
        store.lock()
        settings = files.settings_at_start()
        configure(settings.settings.log_level)
        for complaint in settings.complaints:
            log.error("settings.refused", complaint=complaint.text, now="the last good copy is in force")
        with contextlib.suppress(OSError):
            files.keep_settings(settings)
        policies = Policies(files, accounts, places.etc)
        policies.start()
        asyncio.run(_live(places, settings, policies, accounts, store, handed))
    except BadConfig as bad:
        for complaint in bad.complaints:
            log.error("config.refused", complaint=complaint.text)
        return EXIT_HOPELESS
    except StateFileError as error:
        log.error("state.refused", error=str(error))
        return EXIT_HOPELESS
    # The lock goes with the process and not before: a write that hangs in the kernel may still land until then.
    return 0


async def _live(  # the parts that exist before there is an event loop
    places: Places,
    settings: LoadedSettings,
    policies: Policies,
    accounts: Accounts,
    store: Store,
    handed: tuple[Inherited, ...],
) -> None:
    await Daemon(places, settings, policies, accounts, store).run(handed)
