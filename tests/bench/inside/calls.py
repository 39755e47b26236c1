"""Small requests in great number: what one costs the daemon, beside a bare echo through the same HTTP library.

64 connections with one request each on its way, from a process of its own. Each connection is another user's, because
a user may ask 200 times a second; so the daemon is the installed one, with its limits, its log and its state.
"""

import asyncio
import os
import pwd
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from aiohttp import web

from tests.bench.inside.door import DAEMON, Door, connect, cpu_s, main_pid
from tests.bench.measure import take_turns

CONNECTIONS: Final = 64
#: For each connection in one round; with the burst and what comes back meanwhile nobody meets his limit.
EACH: Final = 100
_ECHO: Final = Path("/run/ds01-bench-echo.sock")
_BODY: Final = b'{"jsonrpc":"2.0","id":1,"method":"system.status","params":{}}'
_REQUEST: Final = (
    b"POST %s HTTP/1.1\r\nHost: ds01\r\nContent-Type: application/json\r\nContent-Length: " + b"%d\r\n\r\n%s"
)


def calls(rounds: int) -> dict[str, list[float]]:
    """Processor time of the server for one request, and requests a second as the client sees them."""
    size = len(Door(DAEMON, "bob").ask("POST", "/rpc", _JSON)[1])
    echo = _echo_server(size)
    try:
        daemon = main_pid()
        users = [pwd.getpwnam(f"caller{n}").pw_uid for n in range(CONNECTIONS)]
        crowds = {
            "system.status": (daemon, _Crowd(DAEMON, "/rpc", users)),
            "system.version": (daemon, _Crowd(DAEMON, "/rpc", users, _BODY.replace(b"status", b"version"))),
            "bare echo": (echo, _Crowd(str(_ECHO), "/echo", users)),
            "as many bytes as system.status": (echo, _Crowd(str(_ECHO), "/bytes", users)),
        }
        found: dict[str, list[float]] = {f"{name}, requests a second": [] for name in crowds}

        def once(name: str) -> Callable[[], float]:
            pid, crowd = crowds[name]

            def measured() -> float:
                with crowd:
                    crowd.ask(1)
                    before, began = cpu_s(pid), time.perf_counter()
                    crowd.ask(EACH)
                    took, spent = time.perf_counter() - began, cpu_s(pid) - before
                found[f"{name}, requests a second"].append(CONNECTIONS * EACH / took)
                return spent / (CONNECTIONS * EACH)

            return measured

        return take_turns({name: once(name) for name in crowds}, rounds) | found | {"bytes": [float(size)]}
    finally:
        os.kill(echo, signal.SIGKILL)
        os.waitpid(echo, 0)


_JSON: Final = {"jsonrpc": "2.0", "id": 1, "method": "system.status", "params": {}}


class _Crowd:
    """Connections on each of which the same request goes out as soon as the answer to the one before is in."""

    def __init__(self, path: str, target: str, uids: list[int], body: bytes = _BODY) -> None:
        self._request = _REQUEST % (target.encode(), len(body), body)
        self._path, self._uids = path, uids
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._sockets = [connect(self._path, uid) for uid in self._uids]
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()

    def ask(self, each: int) -> None:
        """So many requests on each connection; fails at the first that is not answered well."""
        selector = selectors.EpollSelector()
        for sock in self._sockets:
            selector.register(sock, selectors.EVENT_READ, [each, 0, 0])
            sock.send(self._request)
        while selector.get_map():
            for key, _ in selector.select():
                from_, left = key.fileobj, key.data
                assert isinstance(from_, socket.socket)
                got = from_.recv(1 << 18)
                if left[1] == 0:
                    left[1] = _length(got)
                left[2] += len(got)
                if left[2] < left[1]:
                    continue
                left[0], left[1], left[2] = left[0] - 1, 0, 0
                if left[0]:
                    from_.send(self._request)
                else:
                    selector.unregister(from_)
        selector.close()


def _length(begin: bytes) -> int:
    """How long an answer is that begins so."""
    head, _, rest = begin.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or b'"error"' in rest:
        raise RuntimeError(f"not answered well: {begin[:500]!r}")
    lower = head.lower()
    at = lower.index(b"content-length:") + len(b"content-length:")
    return len(head) + 4 + int(lower[at:].partition(b"\r\n")[0])


def _echo_server(size: int) -> int:
    """A process that gives back what it is sent, or always the same so many bytes; its pid."""
    _ECHO.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(_ECHO))
    _ECHO.chmod(0o666)
    listening.listen(CONNECTIONS)
    pid = os.fork()
    if pid == 0:
        asyncio.run(_serve(listening, b"x" * size))
    listening.close()
    return pid


async def _serve(listening: socket.socket, same: bytes) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        return web.Response(body=body if request.path == "/echo" else same, content_type="application/json")

    server = await asyncio.get_running_loop().create_server(web.Server(answer, access_log=None), sock=listening)
    await server.serve_forever()
