"""What is measured inside the box, by the box's own Python: only there a caller has a name, and sockets a peer.

`python3 inside.py WHAT [ARGUMENT]` prints JSON. Needs the standard library and nothing else, and must be root.
"""

import grp
import http.client
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

DAEMON = "/run/ds01/ds01d.sock"
ENGINE = "/run/docker.sock"
UNIT = "ds01d.service"
#: Between two runs of something that leaves work behind, seconds.
REST_S = 0.2


class Door(http.client.HTTPConnection):
    """HTTP over a Unix socket, kept open; as a user, or as root."""

    def __init__(self, path: str, user: str | None = None) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path
        self._uid = pwd.getpwnam(user).pw_uid if user else 0

    def connect(self) -> None:
        """The peer's credentials are those of the moment of the connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        os.seteuid(self._uid)
        try:
            self.sock.connect(self._path)
        finally:
            os.seteuid(0)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One request and its whole answer."""
        data = None if body is None else json.dumps(body).encode()
        self.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, **params: object) -> None:
        """One call of the daemon's."""
        status, body = self.ask("POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if status != http.client.OK or "error" in json.loads(body):
            raise RuntimeError(f"{method} {params}: {status} {body.decode()}")

    def engine(self, method: str, path: str, body: object = None) -> bytes:
        """One call of the engine's."""
        status, answer = self.ask(method, path, body)
        if status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return answer


# --- commands, as whole processes


class Starter:
    """A process that became a user, and starts programs as that user would: no fork of a large parent in the time."""

    def __init__(self, user: str, *groups: str) -> None:
        self._pipe, there = Pipe()
        account = pwd.getpwnam(user)
        self._pid = os.fork()
        if self._pid == 0:
            os.setgroups([grp.getgrnam(group).gr_gid for group in groups])
            os.setresgid(*[account.pw_gid] * 3)
            os.setresuid(*[account.pw_uid] * 3)
            with suppress(EOFError):
                while True:
                    there.send(_run(there.recv()))
            os._exit(0)

    def seconds(self, argv: list[str]) -> float:
        """From before its start to after its end."""
        self._pipe.send(argv)
        took: float = self._pipe.recv()
        return took

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _run(argv: list[str]) -> float:
    quiet = [(os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{argv} ended with {status}")
    return took


def commands(rounds: int) -> dict[str, list[float]]:
    """The listing of who has containers and of who has none, beside the engine's own commands; seconds."""
    alice, bob, docker = Starter("alice"), Starter("bob"), Starter("carol", "docker")
    what: dict[str, Callable[[], float]] = {
        "container-list, alice": lambda: alice.seconds(["/usr/bin/container-list"]),
        "container-list, bob": lambda: bob.seconds(["/usr/bin/container-list"]),
        "docker ps": lambda: docker.seconds(["/usr/bin/docker", "ps"]),
        "docker ps -a": lambda: docker.seconds(["/usr/bin/docker", "ps", "-a"]),
        "python3 -IS": lambda: alice.seconds(["/usr/bin/python3", "-IS", "-c", ""]),
    }
    found = _in_turns(what, rounds, warm=3)
    for starter in (alice, bob, docker):
        starter.close()
    return found


def _in_turns(what: dict[str, Callable[[], float]], rounds: int, warm: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in what}
    for n in range(warm + rounds):
        for name in list(what) if n % 2 else reversed(list(what)):
            took = what[name]()
            if n >= warm:
                found[name].append(took)
    return found


# --- create and start, through the daemon and directly


def pairs(rounds: int) -> dict[str, list[float]]:
    """Create and start of one container with a GPU, through the daemon and by the engine's own two calls; seconds.

    The direct calls ask for the same container with the vendor's CDI device, and find the daemon stopped, so that its
    interest in a stranger's container is not counted against the engine.
    """
    daemon, engine = Door(DAEMON, "alice"), Door(ENGINE)
    daemon.call("container.create", name="pattern", image="bb")
    body = _as_made(engine, "pattern")
    daemon.call("container.remove", name="pattern", force=True)
    found: dict[str, list[float]] = {f"{what}, {by}": [] for what in ("create", "start") for by in ("ds01d", "engine")}
    for n in range(rounds + 1):
        for by in ("ds01d", "engine") if n % 2 else ("engine", "ds01d"):
            time.sleep(REST_S)
            created, started = _through(daemon, f"p{n}") if by == "ds01d" else _direct(engine, body)
            if n:
                found[f"create, {by}"].append(created)
                found[f"start, {by}"].append(started)
    return found


def _as_made(engine: Door, name: str) -> dict[str, object]:
    uid = pwd.getpwnam("alice").pw_uid
    made = json.loads(engine.engine("GET", f"/containers/{name}._.{uid}/json"))
    kept = ("User", "Env", "Cmd", "Image", "WorkingDir", "Entrypoint")
    body = {key: made["Config"][key] for key in kept} | {"HostConfig": made["HostConfig"]}
    body["HostConfig"]["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]
    return body


def _through(daemon: Door, name: str) -> tuple[float, float]:
    began = time.perf_counter()
    daemon.call("container.create", name=name, image="bb", wait_s=60)
    created = time.perf_counter()
    daemon.call("container.start", name=name, wait_s=60)
    started = time.perf_counter()
    daemon.call("container.remove", name=name, force=True, wait_s=60)
    return created - began, started - created


def _direct(engine: Door, body: dict[str, object]) -> tuple[float, float]:
    daemon = _main_pid()
    os.kill(daemon, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        made = json.loads(engine.engine("POST", "/containers/create", body))["Id"]
        created = time.perf_counter()
        engine.engine("POST", f"/containers/{made}/start")
        started = time.perf_counter()
        engine.engine("DELETE", f"/containers/{made}?force=1")
    finally:
        os.kill(daemon, signal.SIGCONT)
    return created - began, started - created


# --- the daemon as it stands


def fill(count: int) -> float:
    """So many containers of alice's, without a GPU and never started; seconds for all of them."""
    daemon = Door(DAEMON, "alice")
    began = time.perf_counter()
    for n in range(count):
        daemon.call("container.create", name=f"lies{n}", image="bb", cpu_only=True, wait_s=60)
    return time.perf_counter() - began


def memory(_: int) -> dict[str, dict[str, int]]:
    """Resident and proportional memory of the daemon and its children, KiB."""
    main = _main_pid()
    found = {"daemon": _memory(main)}
    for child in Path(f"/proc/{main}/task/{main}/children").read_text("ascii").split():
        name = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found[name[-2].decode().rpartition(".")[0].rpartition(".")[2] + f" child {child}"] = _memory(int(child))
    return found


def _memory(pid: int) -> dict[str, int]:
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]]
    figures = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return {"rss": figures["Rss"], "pss": figures["Pss"]}


def _main_pid() -> int:
    return int(subprocess.check_output(["systemctl", "show", "--property", "MainPID", "--value", UNIT]))


def ready(rounds: int) -> list[float]:
    """From `systemctl start` to READY, as that command waits for it; seconds."""
    found = []
    for _ in range(rounds):
        subprocess.run(["systemctl", "stop", UNIT], check=True)
        began = time.perf_counter()
        subprocess.run(["systemctl", "start", UNIT], check=True)
        found.append(time.perf_counter() - began)
    return found


WHAT: dict[str, Callable[[int], object]] = {f.__name__: f for f in (commands, pairs, fill, memory, ready)}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](int(sys.argv[2]))))
