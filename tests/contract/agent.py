"""Runs inside the box: the daemon's real hands, looks, events and shells, ordered about over a Unix socket.

One request a line, {"call": name, ...}; one answer a line, with a descriptor where a shell is claimed.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.cdi import Permissions
from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.docker_events import EngineEvents
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.engine_listing import EngineListing
from ds01d.adapters.engine_look import Ghosts, Looker
from ds01d.adapters.hands import Hands
from ds01d.adapters.paths import Paths
from ds01d.adapters.procfs import Procfs
from ds01d.adapters.sessions import Sessions
from ds01d.adapters.systemd import Notifier, inherited
from ds01d.core import effects
from ds01d.core.events import Event
from ds01d.model.errors import Refused
from ds01d.model.ids import EngineId, SlotId, Uid
from ds01d.model.permission import SlotDevice
from ds01d.model.probe import Blind

GRANTS: Final = Path("/run/ds01/grant")
SPECS: Final = Path("/var/run/cdi")

Call = Callable[[dict[str, object], list[int]], Awaitable[tuple[object, int | None]]]


class NoCards:
    """A driver that does not answer: the cards are another suite's matter."""

    async def poll(self) -> Blind:
        return Blind(reason="no driver here")


def encoded(event: object) -> dict[str, object]:
    return {"type": type(event).__name__, "body": msgspec.to_builtins(event)}


class Agent:
    """Everything that talks to the engine, joined as the daemon joins it."""

    def __init__(self) -> None:
        self.posted: list[dict[str, object]] = []
        self.revision = 0
        self.engine = DockerEngine(Path("/run/docker.sock"))
        procfs, cgroups, process, ghosts = Procfs(), Cgroups(), EngineProcess(), Ghosts()
        permissions = Permissions(
            grant_dir=GRANTS,
            cdi_dir=SPECS,
            guard=Path("/usr/lib/ds01/cdi-guard"),
            vendor_dirs=[Path("/etc/cdi")],
        )
        looker = Looker(
            engine=self.engine, process=process, probe=NoCards(), cgroups=cgroups, procfs=procfs, ghosts=ghosts
        )
        self.hands = Hands(
            engine=self.engine,
            permissions=permissions,
            directories=Paths(),
            looker=looker,
            ghosts=ghosts,
            device_map=dict[SlotId, SlotDevice],
        )
        self.listing = EngineListing(
            self.engine,
            cgroups=cgroups,
            permissions=permissions.seen,
            post=self.post,
            revision=lambda: self.revision,
        )
        self.events = EngineEvents(self.engine, post=self.post, reconnected=self.listing.ask, process=process)
        self.notifier = Notifier()
        self.sessions = Sessions(self.engine, self.notifier, procfs)

    def post(self, event: Event) -> None:
        self.posted.append(encoded(event))

    async def answer(self, request: dict[str, object], fds: list[int]) -> tuple[object, int | None]:
        """Carry one request out; a descriptor goes with the answer to a claim."""
        match request["call"]:
            case "order":
                order = msgspec.convert(request["body"], getattr(effects, str(request["type"])))
                return encoded(await self.hands.perform(order, self.post)), None
            case "posted":
                taken, self.posted = self.posted, []
                return taken, None
            case "relist":
                self.revision = int(str(request["revision"]))
                self.listing.ask()
                return None, None
            case "shell":
                ticket = await self.sessions.start(
                    EngineId(str(request["engine_id"])),
                    tuple(msgspec.convert(request["argv"], list[str])),
                    user="1001:1001",
                    env={"TERM": "xterm", "ANSWER": "42"},
                    tty=bool(request["tty"]),
                    workdir=None,
                    size=(24, 80),
                    uid=Uid(1001),
                    lives_in=False,
                )
                return ticket._asdict(), None
            case "claim":
                exec_id, fd = await self.sessions.claim(str(request["ticket"]), Uid(int(str(request["uid"]))), fds[0])
                return exec_id, fd
            case "resize":
                await self.sessions.resize(str(request["exec_id"]), 11, 22)
                return None, None
            case "result":
                return (await self.sessions.result(str(request["exec_id"])))._asdict(), None
            case "cut":
                return self.sessions.cut(EngineId(str(request["engine_id"]))), None
            case "count":
                return self.sessions.count(Uid(1001)), None
            case other:
                raise ValueError(other)

    async def serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                # One request at a time, so a line and its descriptors are never split or joined.
                readable = asyncio.Event()
                loop.add_reader(connection, readable.set)
                await readable.wait()
                loop.remove_reader(connection)
                line, fds, _, _ = socket.recv_fds(connection, 2**20, 4)
                if not line:
                    return
                handed: int | None = None
                try:
                    answer, handed = await self.answer(json.loads(line), fds)
                    said = {"ok": answer}
                except Refused as refused:
                    said = {"refused": refused.kind, "message": refused.message}
                except Exception as error:  # noqa: BLE001 - the test shall see it
                    said = {"error": repr(error)}
                text = (json.dumps(said) + "\n").encode()
                connection.setblocking(True)
                if handed is None:
                    connection.sendall(text)
                else:
                    socket.send_fds(connection, [text], [handed])
                connection.setblocking(False)
                for fd in [*fds, *([] if handed is None else [handed])]:
                    os.close(fd)
        finally:
            connection.close()


async def main(listener: socket.socket) -> None:
    agent = Agent()
    await agent.sessions.restore(inherited())
    keep = {asyncio.create_task(agent.listing.run()), asyncio.create_task(agent.events.run())}
    agent.notifier.ready("the agent listens")
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setblocking(False)
        keep.add(asyncio.create_task(agent.serve(connection)))


if __name__ == "__main__":
    at = Path(sys.argv[1])
    at.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(at))
    door.listen()
    door.setblocking(False)
    asyncio.run(main(door))
