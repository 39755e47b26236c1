"""A virtual server with the product installed as people would have it, and the people's hands in it."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from tests.system.ledger import Picture, agrees
from tests.testbed.server import DEFAULT_LAYOUT, Server, until

SOCKET: Final = "/run/ds01/ds01d.sock"
#: Everything is looked at often, so that tests need not wait.
SETTINGS: Final = "intervals: {nvml: 1s, proc: 1s, cgroup: 1s, listing: 1s}\n"
POLICY: Final = """\
groups: {student: {}}
defaults:
  max_mig_instances: 2
  max_gpus_per_container: 2
  max_containers_per_user: 10
  gpu_hold_after_stop: 1h
  created_timeout: 30m
policies:
  sigterm_grace: 3s
"""
USERS: Final = {"alice": 1001, "bob": 1002, "carol": 1003, "dana": 1004}


class House:
    """A server, its daemon, and everybody who lives there."""

    def __init__(self, server: Server) -> None:
        self.server = server

    # --- what people do

    def run(
        self,
        user: str,
        *argv: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002  # subprocess.run calls it so
        timeout: float = 60,
    ) -> "CompletedProcess[str]":
        """A command of a person's."""
        return self.server.exec(*argv, user=user, check=check, input=input, timeout=timeout)

    def refused(self, user: str, *argv: str, code: int) -> str:
        """A command that has to end with this code; what it said."""
        done = self.run(user, *argv, check=False)
        assert done.returncode == code, f"{shlex.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr

    def create(self, user: str, name: str, *options: str) -> dict[str, Any]:
        """Make a container; as the list shows it."""
        self.run(user, "container-create", name, "bb", *options)
        return self.of(user, name)

    def started(self, user: str, name: str, *options: str) -> dict[str, Any]:
        """Make a container and start it."""
        self.create(user, name, *options)
        self.run(user, "container-start", name)
        return self.of(user, name)

    def list(self, user: str) -> dict[str, dict[str, Any]]:
        """A person's containers by name."""
        rows = json.loads(self.run(user, "container-list", "--json").stdout)["containers"]
        return {row["name"]: row for row in rows}

    def of(self, user: str, name: str) -> dict[str, Any]:
        """One container as its owner sees it."""
        return self.list(user)[name]

    def wait_for(self, user: str, name: str, status: str, timeout: float = 10) -> dict[str, Any]:
        """Wait until its owner sees it in this state."""
        try:
            until(f"{name} is {status}", lambda: self.list(user).get(name, {}).get("status") == status, timeout)
        except TimeoutError as error:
            error.add_note(f"{self.list(user).get(name)}\n{self.said()}")
            raise
        return self.of(user, name)

    def wait_for_free(self, slot: str, timeout: float = 10) -> None:
        """Wait until anybody may have this slot."""
        self.wait_for_slot(slot, "free", timeout)

    def wait_for_slot(self, slot: str, state: str, timeout: float = 10) -> dict[str, Any]:
        """Wait until a slot is shown like this."""
        try:
            until(f"{slot} is {state}", lambda: self.slots()[slot]["state"] == state, timeout)
        except TimeoutError as error:
            error.add_note(f"{self.slots()[slot]}\n{self.said()}")
            raise
        return self.slots()[slot]

    def said(self) -> str:
        """What the daemon wrote last, without what it was asked."""
        lines = [line for line in self.server.journal().splitlines() if '"rpc.answered"' not in line]
        return "\n".join(lines[-40:])

    def slots(self) -> dict[str, dict[str, Any]]:
        """Every slot by name, as an operator sees it."""
        rows = json.loads(self.server.exec("ds01ctl", "gpus", "--json").stdout)["slots"]
        return {row["slot"]: row for row in rows}

    def notices(self) -> str:
        """What the machine's status says is amiss, in one text."""
        return str(self.server.exec("ds01ctl", "status").stdout)

    def rpc(self, user: str | None, method: str, **params: object) -> dict[str, Any]:
        """One call by curl; the whole answer."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer: dict[str, Any] = json.loads(self.post(user, body))
        return answer

    def post(self, user: str | None, body: str) -> str:
        """A body as it is, by curl."""
        head = ("-H", "Content-Type: application/json")
        done = self.server.exec(
            *("curl", "-s", "--unix-socket", SOCKET, "http://ds01/rpc", *head, "--data-binary", "@-"),
            user=user,
            input=body,
        )
        return done.stdout

    # --- what the engine says

    def engine_name(self, user: str, name: str) -> str:
        """What docker calls a container."""
        return f"{name}._.{USERS[user]}"

    def inspect(self, user: str, name: str) -> dict[str, Any]:
        """What docker says of a container."""
        found: list[dict[str, Any]] = json.loads(self.server.docker("inspect", self.engine_name(user, name)).stdout)
        return found[0]

    def devices(self, user: str, name: str) -> set[str]:
        """The cards that a running container really has."""
        script = "ls -d /dev/nvidia[0-9]* 2>/dev/null || true"
        return set(self.server.docker("exec", self.engine_name(user, name), "sh", "-c", script).stdout.split())

    # --- the machine

    def policy(self, text: str) -> None:
        """Another policy than before, in force when this returns."""
        before = self.server.journal().count("policy.loaded")
        self.server.write("/etc/ds01/resource-limits.yaml", text)
        self.server.exec("systemctl", "reload", "ds01d.service")
        until("the policy is in force", lambda: self.server.journal().count("policy.loaded") > before, 5)

    def picture(self) -> Picture:
        """Everything at once."""
        return Picture(self.server)

    def agrees(self) -> Picture:
        """Ledger, engine, permissions, cgroups and devices say the same."""
        return agrees(self.server)

    def clear(self) -> None:
        """Everybody's containers go, foreign ones too, and the cards are as new."""
        self.server.nvml.clear_faults()
        for gpu in self.server.nvml.gpus:
            gpu.clear_processes()
            gpu.held_mib, gpu.lost, gpu.present = 0, False, True
        # Killed first: nobody has to wait for a job that is deaf.
        self.server.exec("sh", "-c", 'ids=$(docker ps -aq); [ -z "$ids" ] || docker rm -f $ids >/dev/null', check=False)
        until("every record is gone", lambda: not self.picture().containers, 20)
        until("every slot is free", lambda: {s["state"] for s in self.slots().values()} == {"free"}, 15)


@contextmanager
def house(*, policy: str | None = POLICY, layout: Path = DEFAULT_LAYOUT, settings: str = SETTINGS) -> Iterator[House]:
    """Boot a server and install the product in it; without a policy of the test's, the one that is shipped."""
    with Server(layout=layout, install=False) as server:
        server.install("--no-start")
        if policy is not None:
            server.write("/etc/ds01/resource-limits.yaml", policy)
            server.exec("rm", "-r", "/etc/ds01/groups")
        server.write("/etc/ds01/ds01d.yaml", settings)
        server.exec("systemctl", "start", "--no-block", "ds01d.service")
        server.daemon_up()
        yield House(server)
