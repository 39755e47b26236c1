"""A daemon that answers as it is told and remembers what it was asked, and the second door, which hands out shells."""

import json
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import quote

VERSION: Final = "0.1.0"


class Asked(NamedTuple):
    """One request as it came in."""

    line: str
    headers: dict[str, str]
    method: str
    params: dict[str, object]


class Reply(NamedTuple):
    """What to answer with."""

    body: str = "done\n"
    exit_code: int = 0
    message: str = ""
    version: str = VERSION
    #: Sent instead of all that, as it is; the connection is closed after it.
    raw: bytes | None = None


Answer = Reply | Callable[[dict[str, object]], Reply]


def result(value: object) -> Reply:
    """A result as JSON."""
    return Reply(json.dumps(value) + "\n")


def error(kind: str, exit_code: int, message: str = "cannot do it", hint: str = "do something else") -> Reply:
    """An error as JSON."""
    what = {"code": -31000, "kind": kind, "message": message, "hint": hint, "exit_code": exit_code}
    return Reply(json.dumps({"error": what}) + "\n", exit_code)


class FakeDaemon:
    """Both sockets, served by threads."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "ds01d.sock"
        self.door = directory / "fd.sock"
        self.asked: list[Asked] = []
        #: By method; asked for something else it says "done".
        self.answers: dict[str, Answer] = {}
        #: Lines of `GET /events`, each sent as a chunk of its own.
        self.events: list[bytes] = []
        #: The engine's ends of the connections that were handed out.
        self.engine: queue.Queue[socket.socket] = queue.Queue()
        self.tickets: list[str] = []
        #: What the second door does; by default it hands a connection out.
        self.hand_out: Callable[[socket.socket], None] = self.hand_one
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._given: list[socket.socket] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for sock in self._given:
            sock.close()

    def start(self) -> None:
        """Listen."""
        for path, serve in ((self.socket, self._rpc), (self.door, self._shell)):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
            self._listeners.append(listener)
            self._spawn(self._accept, listener, serve)

    def stop(self) -> None:
        """Be gone, as a daemon without systemd's sockets is."""
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for listener in self._listeners:
            listener.close()
        self._listeners, self._threads = [], []
        self.socket.unlink(missing_ok=True)
        self.door.unlink(missing_ok=True)

    def methods(self) -> list[str]:
        """What was asked for, in order."""
        return [a.method for a in self.asked]

    def shell(self, exit_code: int = 0, exec_id: str = "e1") -> None:
        """Hand out one shell at a time, each ending like this."""
        self.answers["exec.start"] = result({"exec": exec_id, "ticket": "t1", "container": "thesis"})
        self.answers["exec.result"] = result({"running": False, "exit_code": exit_code})

    def connection(self) -> socket.socket:
        """The engine's end of the next shell."""
        return self.engine.get(timeout=10)

    def hand_one(self, client: socket.socket) -> None:
        """Hand one connection out."""
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self._given.append(ours)
        with theirs:
            socket.send_fds(client, [b"ok e1\n"], [theirs.fileno()])
        self.engine.put(ours)

    def _spawn(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.settimeout(10)
            self._spawn(self._serve, client, serve)

    def _serve(self, client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with client, suppress(OSError):
            serve(client)

    def _shell(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            self.tickets.append(lines.readline().decode().strip())
        self.hand_out(client)

    def _rpc(self, client: socket.socket) -> None:
        with client.makefile("rb") as incoming:
            line = incoming.readline().decode().strip()
            headers: dict[str, str] = {}
            while text := incoming.readline().decode().strip():
                name, _, value = text.partition(": ")
                headers[name] = value
            body = incoming.read(int(headers.get("Content-Length", 0)))
        request = json.loads(body or "{}")
        asked = Asked(line, headers, request.get("method", ""), request.get("params", {}))
        self.asked.append(asked)
        if line.startswith("GET /events"):
            self._stream(client)
            return
        answer = self.answers.get(asked.method, Reply())
        reply = answer if isinstance(answer, Reply) else answer(asked.params)
        client.sendall(_bytes(reply) if reply.raw is None else reply.raw)

    def _stream(self, client: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nDs01-Version: {VERSION}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        for line in self.events:
            client.sendall(b"%x\r\n%s\r\n" % (len(line), line))


def _bytes(reply: Reply) -> bytes:
    body = reply.body.encode()
    heads = [f"Content-Length: {len(body)}", f"Ds01-Exit: {reply.exit_code}", f"Ds01-Version: {reply.version}"]
    if reply.message:
        heads.append(f"Ds01-Message: {quote(reply.message)}")
    return "\r\n".join(["HTTP/1.1 200 OK", *heads, "", ""]).encode() + body


def environment(daemon: FakeDaemon, **more: str) -> dict[str, str]:
    """What a command finds in its environment."""
    return {"DS01_SOCKET": str(daemon.socket), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm", **more}
