"""How the bench talks to the daemon and to the engine, and what it reads of their processes."""

import http.client
import json
import os
import pwd
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final

DAEMON: Final = "/run/ds01/ds01d.sock"
ENGINE: Final = "/run/docker.sock"
UNIT: Final = "ds01d.service"
#: Between two runs of something that leaves work behind, seconds.
REST_S: Final = 0.2


class Door(http.client.HTTPConnection):
    """HTTP over a Unix socket, kept open; as a user, or as root."""

    def __init__(self, path: str, user: str | None = None) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path
        self._uid = pwd.getpwnam(user).pw_uid if user else 0

    def connect(self) -> None:
        """The peer's credentials are those of the moment of the connect."""
        self.sock = connect(self._path, self._uid)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One request and its whole answer."""
        data = None if body is None else json.dumps(body).encode()
        self.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, **params: object) -> Any:  # noqa: ANN401  # each method has its own result
        """One call of the daemon's."""
        status, body = self.ask("POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer = json.loads(body)
        if status != http.client.OK or "error" in answer:
            raise RuntimeError(f"{method} {params}: {status} {body.decode()}")
        return answer["result"]

    def engine(self, method: str, path: str, body: object = None) -> bytes:
        """One call of the engine's."""
        status, answer = self.ask(method, path, body)
        if status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return answer


def connect(path: str, uid: int) -> socket.socket:
    """A connection for which the kernel vouches that this uid made it."""
    sock = socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    try:
        sock.connect(path)
    finally:
        os.seteuid(0)
    return sock


def main_pid(unit: str = UNIT) -> int:
    """The main process of a unit."""
    return int(subprocess.check_output(["systemctl", "show", "--property", "MainPID", "--value", unit]))


def children(pid: int) -> list[int]:
    """The processes that a process has begun."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has had, with all its threads, to the nanosecond."""
    # The clock of another process as the kernel numbers it: clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)
