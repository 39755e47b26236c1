"""One exec's own connection to the engine: opened and upgraded by us, then handed to whoever talks through it.

The engine drops what comes together with the head of a request, and a connection that did not answer 101 goes on
speaking HTTP: so the head is read to its last byte and no further, and no other connection is ever handed out.
"""

import asyncio
import json
import socket
from pathlib import Path
from typing import Final

from ds01d.adapters.docker import EngineBroke, EngineLate, EngineRefused, EngineUnreachable

#: Seconds until the engine must have switched protocols.
UPGRADE_S: Final = 10.0
HEAD_BYTES: Final = 16 * 2**10
_SWITCHED: Final = 101


async def attach(engine: Path, exec_id: str, *, tty: bool, size: tuple[int, int] | None) -> socket.socket:
    """Start the exec and give the connection that carries its streams; `size` is rows and columns of its terminal."""
    body = {"Detach": False, "Tty": tty} | ({"ConsoleSize": list(size)} if tty and size is not None else {})
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(0)
    try:
        async with asyncio.timeout(UPGRADE_S):
            await _upgrade(connection, engine, exec_id, json.dumps(body).encode())
    except TimeoutError as error:
        connection.close()
        raise EngineLate(f"the engine did not start the exec within {UPGRADE_S:g} s") from error
    except OSError as error:
        connection.close()
        raise EngineBroke("the connection to the engine broke") from error
    except BaseException:
        connection.close()
        raise
    # The mode belongs to all duplicates: whoever gets one expects a socket that waits.
    connection.settimeout(None)
    return connection


async def _upgrade(connection: socket.socket, engine: Path, exec_id: str, body: bytes) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(connection, str(engine))
    except OSError as error:
        raise EngineUnreachable(f"cannot reach the engine: {error.strerror}") from error
    head = (
        f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    await loop.sock_sendall(connection, head.encode() + body)
    status = _status(await _head(connection))
    if status != _SWITCHED:
        raise EngineRefused(status, _message(await loop.sock_recv(connection, HEAD_BYTES)))


async def _head(connection: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(connection, 1)
        if not byte or len(head) > HEAD_BYTES:
            raise EngineBroke("the engine hung up while it started the exec")
        head += byte
    return bytes(head)


def _status(head: bytes) -> int:
    try:
        return int(head.split(b" ", 2)[1])
    except (IndexError, ValueError):
        return 0


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["message"])
    except (ValueError, KeyError, TypeError):
        return "the engine did not start the exec"
