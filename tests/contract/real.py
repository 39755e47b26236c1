"""The real engine in a box, as the contract asks for it. The daemon's own hands run inside, in the agent."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from ds01d.core import events
from ds01d.core.effects import AnyOrder
from ds01d.core.events import Answer, Event
from ds01d.model.ids import EngineId, Key
from tests.testbed.server import ENGINE, Server, until

UNIT: Final = "agent"
_AGENT: Final = Path(__file__).with_name("agent.py")


class Refusal(Exception):
    """The agent's shells said no; `kind` as in the API."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RealWorld:
    """`with RealWorld("trixie", live_restore=True) as world:` boots a box with an engine, guard, init and the agent."""

    def __init__(self, image: str, *, live_restore: bool) -> None:
        self.server = Server(image=image, live_restore=live_restore, install=False)
        # One connection for each thread: the agent answers one request of a connection at a time.
        self._connections: dict[int, socket.socket] = {}

    def __enter__(self) -> Self:
        self.server.start()
        try:
            self.server.install("--no-start")
            shutil.copy(_AGENT, self.server.shared / "agent.py")
            self.start_agent()
        except BaseException:
            self.server.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()
        self.server.stop()

    # --- the agent

    def start_agent(self) -> None:
        """Run it as a service, so that systemd keeps its descriptors and starts it again."""
        properties = ("Type=notify", "NotifyAccess=main", "FileDescriptorStoreMax=64", "Restart=always", "RestartSec=0")
        self.server.exec(
            "systemd-run",
            f"--unit={UNIT}",
            *(f"--property={text}" for text in properties),
            "--setenv=PYTHONPATH=/usr/lib/ds01/python",
            "/usr/bin/python3",
            "/host/agent.py",
            "/host/agent.sock",
        )

    def kill_agent(self) -> None:
        """SIGKILL; returns when its successor listens."""
        self._hang_up()
        self.server.kill(f"{UNIT}.service")
        until("the agent is back", lambda: self.server.is_active(f"{UNIT}.service"), 10)

    def call(self, name: str, *, fds: tuple[int, ...] = (), **request: object) -> object:
        """One request to the agent."""
        return self._ask(name, fds, request)[0]

    def claim(self, ticket: str, client: int, uid: int = 1001) -> socket.socket:
        """Exchange a ticket for the connection to a shell; `client` is the pidfd that stands for its client."""
        _, handed = self._ask("claim", (client,), {"ticket": ticket, "uid": uid})
        return socket.socket(fileno=handed[0])

    def _ask(self, name: str, fds: tuple[int, ...], request: dict[str, object]) -> tuple[object, list[int]]:
        connection = self._connections.get(threading.get_ident())
        if connection is None:
            connection = self._connections[threading.get_ident()] = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.server.shared / "agent.sock"))
            connection.settimeout(60)
        socket.send_fds(connection, [json.dumps({"call": name, **request}).encode()], list(fds))
        text, handed = b"", list[int]()
        while not text.endswith(b"\n"):
            part, more, _, _ = socket.recv_fds(connection, 2**20, 4)
            assert part, self.server.exec("journalctl", "--unit", UNIT, "--no-pager", check=False).stdout
            text, handed = text + part, handed + more
        said = json.loads(text)
        if "refused" in said:
            raise Refusal(said["refused"], said["message"])
        assert "ok" in said, said
        return said["ok"], handed

    def _hang_up(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    # --- the contract

    def perform(self, order: AnyOrder) -> Answer:
        said = self.call("order", type=type(order).__name__, body=msgspec.to_builtins(order))
        answer = _decoded(said)
        assert isinstance(answer, Answer)
        return answer

    def perform_while(self, order: AnyOrder, accident: Callable[[], None]) -> Answer:
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(self.perform, order)
            time.sleep(1)  # the order is on its way, and nothing tells how far
            accident()
            return answer.result(60)

    def posted(self) -> list[Event]:
        said = self.call("posted")
        assert isinstance(said, list)
        return [_decoded(one) for one in said]

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def engine_id_of(self, name: str) -> EngineId:
        return EngineId(self.server.docker("inspect", "--format", "{{.Id}}", name).stdout.strip())

    def raw_start(self, engine_id: EngineId) -> str:
        return self.server.docker("start", engine_id, check=False).stderr

    def raw_create(self, name: str, key: Key | None = None) -> EngineId:
        device = ["--device", f"ds01/gpu={key}"] if key is not None else []
        made = self.server.docker("create", "--name", name, *device, "bb:latest", "sleep", "60")
        return EngineId(made.stdout.strip())

    def forge_generation(self, key: Key) -> None:
        path = f"/run/ds01/grant/{key}"
        container, generation, rest = self.server.file(path).split(" ", 2)
        self.server.write(path, f"{container} {generation}9 {rest}", 0o600)

    def hold_starts(self, key: Key, seconds: float) -> None:
        path = f"/run/cdi/ds01-{key}.json"
        spec = json.loads(self.server.file(path))
        hook = {"hookName": "createRuntime", "path": "/usr/bin/sleep", "args": ["sleep", str(seconds)]}
        spec["devices"][0]["containerEdits"]["hooks"].append(hook)
        # In one step and from within the directory: the engine reads what inotify tells it of.
        self.server.write(f"{path}.new", json.dumps(spec), 0o600)
        self.server.exec("mv", f"{path}.new", path)
        time.sleep(0.5)  # until the engine has read it; nothing tells when

    def kill_engine(self) -> None:
        self.server.kill(ENGINE)
        until("the engine is back", lambda: self.server.is_active(ENGINE), 30)

    def processes_in(self, engine_id: EngineId) -> int:
        counted = self.server.exec("sh", "-c", f"cat /sys/fs/cgroup/*/*/*{engine_id}*/cgroup.procs | sort -u | wc -l")
        return int(counted.stdout)


def _decoded(said: object) -> Event:
    assert isinstance(said, dict)
    event: Event = msgspec.convert(said["body"], getattr(events, said["type"]))
    return event
