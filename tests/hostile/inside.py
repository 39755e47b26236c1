"""Runs inside a box, with nothing but the standard library: callers that mean no good, and one that waits his turn.

`python3 inside.py DEED UID ARGUMENT…` becomes the uid first; what it saw it prints as JSON.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

REQUESTS, SHELLS = "/run/ds01/ds01d.sock", "/run/ds01/fd.sock"
MIB = 2**20


def connect(path: str = REQUESTS, timeout_s: float = 15.0) -> socket.socket:
    """A new connection."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Waits where the backlog is full, as every plain client does; with a timeout it would be refused.
    sock.connect(path)
    sock.settimeout(timeout_s)
    return sock


def request(body: bytes, target: bytes = b"/rpc", verb: bytes = b"POST") -> bytes:
    """Bytes of a request."""
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (verb, target, len(body)) + body


def call(method: str, params: dict[str, object]) -> bytes:
    """Bytes of a call."""
    return request(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())


def answer(sock: socket.socket) -> bytes:
    """One answer's body; empty: the other end has closed."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = sock.recv(65536)
        if not part:
            return b""
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) if b"ontent-" in head else 0
    while len(body) < length:
        body += sock.recv(65536)
    return body


def kind(body: bytes) -> str:
    """What came of a call, in a word."""
    value = json.loads(body)
    return str(value["error"]["data"]["kind"]) if "error" in value else "ok"


# ── deeds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def ask() -> None:
    """Makes the calls of stdin, each on a connection of its own; prints what came of each."""
    kinds = []
    for method, params in json.load(sys.stdin):
        with connect() as sock:
            sock.sendall(call(method, params))
            kinds.append(kind(answer(sock)))
    print(json.dumps(kinds))


def wait_turn(seconds: str) -> None:
    """Does what a person does, and prints how long each answer took, in milliseconds."""
    waits, kinds, end = [], Counter[str](), time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for method in ("container.list", "system.status", "system.version"):
            began = time.monotonic()
            with connect() as sock:
                sock.sendall(call(method, {}))
                kinds[kind(answer(sock))] += 1
            waits.append(round((time.monotonic() - began) * 1000, 1))
        time.sleep(0.01)
    waits.sort()
    print(
        json.dumps(
            {"n": len(waits), "p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100], "worst": waits[-1]}
            | {"kinds": kinds}
        )
    )


def flood(what: str, seconds: str, connections: str) -> None:
    """Sends the same again and again on many connections, as fast as it is taken."""
    end, done = time.monotonic() + float(seconds), Counter[str]()
    raw = {
        "health": request(b"", b"/healthz", b"GET"),
        "status": call("system.status", {}),
        "events": call("system.events", {"limit": 10000}),
        "garbage": request(b'{"a": "' + b"\\\\" * (MIB // 2 - 100)),
        "twice": request(b"[" + b",".join([b'{"a":1,"a":2,"b":"' + b"x" * 200 + b'"}'] * 4000) + b"]"),
        "batch": request(json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}] * 20).encode()),
    }[what]

    def one() -> None:
        while time.monotonic() < end:
            with suppress(OSError, ValueError, IndexError), connect() as sock:
                while time.monotonic() < end:
                    sock.sendall(raw)
                    done["answered" if answer(sock) else "closed"] += 1

    threads = [threading.Thread(target=one) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(done))


def hold(what: str, number: str) -> None:
    """Opens so many connections, says so, and keeps them until stdin ends."""
    first = {
        "silent": b"",
        "half": b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        "head": b"POST /rpc HT",
        "events": b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "unread": call("rpc.discover", {}) * 40,
        "shells": b"",
        "ticket": b"half a tick",
    }[what]
    kept = []
    for _ in range(int(number)):
        with suppress(OSError):
            kept.append(connect(SHELLS if what in {"shells", "ticket"} else REQUESTS))
            kept[-1].setblocking(False)
            kept[-1].send(first)
    print(len(kept), flush=True)
    sys.stdin.read()


def fetch(ticket: str) -> None:
    """Shows a ticket at the second door; prints the answer and how many descriptors came."""
    with connect(SHELLS) as sock:
        sock.sendall(ticket.encode("utf-8", "surrogateescape") + b"\n")
        line, fds, _, _ = socket.recv_fds(sock, 400, 4)
    print(json.dumps([line.decode(), len(fds)]))
    # A shell of which nothing was read yet would end with its client at once, which is not what is asked here.
    time.sleep(0.2)


def vanish(daemon: str, request_json: str, *, again: str) -> None:
    """Calls while the daemon sleeps, and is gone when it wakes; `again`: another process of root's has the pid then."""
    method, params = json.loads(request_json)
    os.kill(int(daemon), signal.SIGSTOP)
    try:
        child = os.fork()
        if not child:
            connect().sendall(call(method, params))
            os._exit(0)
        os.waitpid(child, 0)
        heir = _heir(child) if again == "again" else 0
    finally:
        os.kill(int(daemon), signal.SIGCONT)
    time.sleep(0.5)
    print(json.dumps({"pid": child, "heir": heir}))
    if heir:
        os.kill(heir, signal.SIGKILL)
        os.waitpid(heir, 0)


def _heir(pid: int) -> int:
    """A process with just this pid."""
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        heir = os.fork()
        if not heir:
            time.sleep(60)
            os._exit(0)
        if heir == pid:
            return heir
        os.kill(heir, signal.SIGKILL)
        os.waitpid(heir, 0)
    raise SystemExit("nobody got the pid")


def swap(place: str, away: str, seconds: str) -> None:
    """Puts now a directory, now a link to somebody else's into the same place, as fast as it can."""
    end, path = time.monotonic() + float(seconds), Path(place)
    while time.monotonic() < end:
        path.mkdir()
        time.sleep(0.002)
        path.rename(f"{place}.was")
        path.symlink_to(away)
        time.sleep(0.002)
        path.unlink()
        Path(f"{place}.was").rmdir()


DEEDS: dict[str, Callable[..., None]] = {
    "ask": ask,
    "wait_turn": wait_turn,
    "flood": flood,
    "hold": hold,
    "fetch": fetch,
    "vanish": lambda daemon, asked, again: vanish(daemon, asked, again=again),
    "swap": swap,
}


def main() -> None:
    deed, uid, *arguments = sys.argv[1:]
    if int(uid) != os.getuid():
        # With the groups of whoever has this uid, if anybody has.
        with suppress(KeyError):
            import pwd  # noqa: PLC0415  # containers may have none

            os.initgroups(pwd.getpwuid(int(uid)).pw_name, int(uid))
        os.setgid(int(uid))
        os.setuid(int(uid))
    DEEDS[deed](*arguments)


if __name__ == "__main__":
    main()
