"""A real server on a temporary socket, behind it the real core in a world that does at once what it is told."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from ds01d.api import peer as peers
from ds01d.api.desk import Desk
from ds01d.api.method import Method
from ds01d.api.methods import METHODS
from ds01d.api.peer import Peer
from ds01d.api.rpc import Rpc
from ds01d.api.server import Server
from ds01d.api.throttle import Limits, Throttle
from ds01d.model.actor import Actor
from tests.api.caller import Client
from tests.api.fakes import Directory, Engine, Memory, Shells, Workspaces
from tests.api.mind import InstantMind, small_machine


def as_declared(method: Method, result: msgspec.Struct) -> None:
    """A result is what its method says it is, down to the last field."""
    assert type(result) is method.result, f"{method.name} gave {type(result)}"
    assert msgspec.convert(msgspec.to_builtins(result), method.result, strict=True) == result
    msgspec.json.decode(msgspec.json.encode(result), type=method.result, strict=True)


class House:
    """The server and everything behind it."""

    def __init__(self, limits: Limits) -> None:
        self.clock = 0.0
        self.mind = InstantMind(small_machine())
        self.directory = Directory()
        self.workspaces = Workspaces()
        self.engine = Engine()
        self.shells = Shells()
        self.past = Memory()
        self.in_container: bool | None = False
        self.folder = Path(tempfile.mkdtemp(prefix="ds01-api-"))
        self.folder.chmod(0o755)
        self.path = str(self.folder / "ds01d.sock")
        desk = Desk(
            mind=self.mind,
            accounts=self.directory,
            paths=self.workspaces,
            images=self.engine,
            sessions=self.shells,
            chronicle=self.past,
        )
        throttle = Throttle(limits, lambda: self.clock)
        rpc = Rpc(desk, METHODS, limits, throttle, inspect=as_declared)
        self.server = Server(rpc=rpc, identify=self.identify, throttle=throttle, limits=limits)
        self.clients: list[Client] = []

    async def identify(self, peer: Peer) -> Actor:
        return await peers.identify(peer, self.directory, lambda _pid: self.in_container)

    async def open(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(self.path)
        os.chmod(self.path, 0o666)  # noqa: PTH101, S103  # as the real one: everybody may connect
        sock.listen(128)
        sock.setblocking(False)
        await self.server.serve(sock)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        await self.server.close(0.1)
        shutil.rmtree(self.folder)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to come about; fails after five seconds."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110  # what it waits for rings no bell
                await asyncio.sleep(0.005)

    async def client(self, uid: int | None = None, groups: Iterable[int] = ()) -> Client:
        """A new connection of this user."""
        client = await Client.at(self.path, uid, groups)
        self.clients.append(client)
        return client


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def house(limits: Limits) -> AsyncIterator[House]:
    house = House(limits)
    await house.open()
    yield house
    await house.close()
