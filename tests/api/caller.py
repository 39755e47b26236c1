"""A caller on a real connection: the kernel vouches for the uid under which it connected."""

import asyncio
import json
import os
import socket
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

#: Whatever JSON came; what it has to be, each test says.
Json: TypeAlias = Any


class Reply(msgspec.Struct, frozen=True):
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def connect(path: str, uid: int | None = None, groups: Iterable[int] = ()) -> socket.socket:
    """Connect as this user; the credentials are those at the moment of connecting."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if uid is None or uid == os.geteuid():
        sock.connect(path)
        sock.setblocking(False)
        return sock
    before = os.getgroups()
    try:
        os.setgroups(list(groups))
        os.setegid(uid)
        os.seteuid(uid)
        sock.connect(path)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)
    sock.setblocking(False)
    return sock


class Client:
    """One connection that sends requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def at(cls, path: str, uid: int | None = None, groups: Iterable[int] = ()) -> "Client":
        return cls(*await asyncio.open_unix_connection(sock=connect(path, uid, groups), limit=2**22))

    async def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
        given = {"Host": "ds01", "Content-Type": "application/json", "Content-Length": str(len(body))}
        given |= {k.replace("_", "-"): v for k, v in headers.items()}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in given.items()) + "\r\n"
        self.writer.write(head.encode() + body)
        return await self.receive()

    async def receive(self) -> Reply:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(head[0].split()[1]), headers, body)

    async def post(self, value: object, **headers: str) -> Reply:
        return await self.send("POST", "/rpc", json.dumps(value).encode(), **headers)

    async def call(self, method: str, /, **params: object) -> Json:
        """The JSON-RPC response to one call."""
        reply = await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        assert reply.status == 200, reply
        return reply.json

    async def result(self, method: str, /, **params: object) -> Json:
        """The result of one call that must go well."""
        answer = await self.call(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, /, **params: object) -> Json:
        """The error of one call that must be refused."""
        answer = await self.call(method, **params)
        assert "error" in answer, answer
        return answer["error"]

    async def close(self) -> None:
        self.writer.close()
