"""Run as `python -m tests.hostile.door FOLDER`: both doors with the real loop and core, before a harmless world.

A process of its own, so that its memory and descriptors are its own. Each line on stdin asks for one line of figures.
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ds01d.api import peer as peers
from ds01d.api.desk import Desk
from ds01d.api.methods import METHODS
from ds01d.api.peer import Peer
from ds01d.api.ports import Kind
from ds01d.api.rpc import Rpc
from ds01d.api.server import Server
from ds01d.api.shells import ShellDoor
from ds01d.api.throttle import Limits, Throttle
from ds01d.core import laws
from ds01d.core.effects import AnyOrder
from ds01d.core.events import Answer
from ds01d.core.state import State
from ds01d.logs import configure
from ds01d.loop.chronicle import Line
from ds01d.loop.loop import Loop
from ds01d.loop.runner import Runner
from ds01d.model.actor import Actor, Owner
from ds01d.model.chronicle import EventLine
from ds01d.model.container import Mount
from ds01d.model.ids import ContainerId, EngineId, Uid
from ds01d.model.operation import Failure
from tests.api.conftest import as_declared
from tests.api.fakes import Directory, Engine, Memory, Shells, Workspaces
from tests.api.mind import InstantMind, small_machine

#: So many requests that the limits never answer in place of what is behind them; impatient, so that halves end soon.
LIMITS: Final = Limits(per_second=1e6, burst=1e6, head_s=3, body_s=3, answer_s=1, quiet_s=0.5)
REQUESTS, SHELLS = "ds01d.sock", "fd.sock"
_LINES_KEPT: Final = 200


class Disk:
    """Takes everything at once."""

    def save(self, _body: bytes, _state: State) -> "asyncio.Future[None]":
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        saved.set_result(None)
        return saved


class World:
    """Does at once what it is told."""

    def __init__(self, state: State) -> None:
        self.mind = InstantMind(state)

    async def perform(self, order: AnyOrder, _late: Callable[[Answer], None]) -> Answer:
        return self.mind._answer(order)  # type: ignore[return-value]  # an order is always answered with an answer


class Told:
    """Remembers the last lines, as a recorder does."""

    def __init__(self, past: Memory) -> None:
        self._past = past

    def record(self, line: Line) -> None:
        if isinstance(line, EventLine):
            self._past.lines.append(line)
            del self._past.lines[:-_LINES_KEPT]

    def changed(self, container: ContainerId, engine_name: str) -> None:
        pass

    def cut_sessions(self, engine_id: EngineId) -> None:
        pass

    def relist(self) -> None:
        pass


class FewShells(Shells):
    """Gives pipes whose other ends are closed at once, and forgets old shells."""

    async def claim(self, ticket: str, uid: Uid, client: int) -> tuple[str, int]:
        claimed = await super().claim(ticket, uid, client)
        os.close(self.lent.pop())
        self.claimed.clear()
        return claimed

    def forget(self) -> None:
        for kept in (self.started, self.sizes, self.of, self.tickets):
            kept.clear()


class FewPaths(Workspaces):
    """Remembers nothing."""

    async def resolve(self, owner: Owner, path: str, kind: Kind, *, create: bool) -> Mount | Failure:
        self.asked.clear()
        return await super().resolve(owner, path, kind, create=create)


class House:
    """Everything behind the doors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: How many tasks there are while nobody talks to it.
        self.at_rest = 0
        self.state = small_machine()
        world = World(self.state)
        self.past = Memory()
        self.runner = Runner(world)
        self.loop = Loop(self.state, clock=world.mind, saver=Disk(), runner=self.runner, notes=Told(self.past))
        self.directory, self.shells, self.engine = Directory(), FewShells(), Engine()
        desk = Desk(
            mind=self.loop,
            accounts=self.directory,
            paths=FewPaths(),
            images=self.engine,
            sessions=self.shells,
            chronicle=self.past,
        )
        self.throttle, self.second = Throttle(LIMITS, time.monotonic), Throttle(LIMITS, time.monotonic)
        rpc = Rpc(desk, METHODS, LIMITS, self.throttle, inspect=as_declared)
        self.server = Server(rpc=rpc, identify=self.identify, throttle=self.throttle, limits=LIMITS)
        self.door = ShellDoor(sessions=self.shells, identify=self.identify, throttle=self.second, show_s=0.5)

    async def identify(self, peer: Peer) -> Actor:
        return await peers.identify(peer, self.directory, lambda _pid: False)

    async def open(self) -> list["asyncio.Task[None]"]:
        """Both doors; gives what runs until it is cancelled."""
        await self.server.serve(self._listener(REQUESTS))
        return [asyncio.create_task(self.loop.run()), asyncio.create_task(self.door.serve(self._listener(SHELLS)))]

    def _listener(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self._folder / name
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen(1024)
        sock.setblocking(False)
        return sock

    async def figures(self) -> dict[str, object]:
        """What is left when everybody has gone."""
        self.shells.forget()
        self.engine.asked.clear()
        self.past.lines.clear()
        began = time.monotonic()
        while time.monotonic() - began < 5 and (self._busy() or len(asyncio.all_tasks()) > self.at_rest):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        laws.check(self.state)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return {
            "rss_kib": _status("VmRSS"),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  # a count is all
            "tasks": len(asyncio.all_tasks()),
            "counted": self._busy(),
            "containers": len(self.state.containers),
            "operations": len(self.state.operations),
        }

    def _busy(self) -> int:
        counts = [len(t._running) + len(t._watching) + t.connection_count for t in (self.throttle, self.second)]
        return sum(counts) + len(self.loop._watchers)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


async def main(folder: Path) -> None:
    # What is logged below a warning is what callers did; from there on it is what went wrong with us.
    configure("warning")
    logging.basicConfig(level=logging.WARNING)
    house = House(folder)
    running = await house.open()
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    house.at_rest = len(asyncio.all_tasks())
    print("ready", flush=True)
    while await orders.readline():
        print(json.dumps(await house.figures()), flush=True)
    await house.server.close(0.1)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await house.runner.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
