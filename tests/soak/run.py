"""Orders a storm in a box, and judges it: what people expect, ledger, engine, permissions, cgroups, kept shells."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.system.house import SETTINGS, USERS, House
from tests.system.ledger import Picture, agrees
from tests.testbed.server import Server, until

HERE: Final = Path(__file__).resolve().parent
BROUGHT: Final = ("person.py", "root.py", "storm.py")
#: Holds are short, so that slots change hands all the time.
POLICY: Final = """\
groups: {student: {}}
defaults:
  max_mig_instances: 3
  max_gpus_per_container: 2
  max_containers_per_user: 10
  gpu_hold_after_stop: 3s
  created_timeout: 6s
policies:
  sigterm_grace: 2s
"""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What kind of storm."""

    seed: str
    kills: int
    engine_kills: int
    live_restore: bool
    #: Between READY and the kill on average, seconds.
    pause_s: float = 0.6
    #: Without a kill at the end, seconds.
    calm_s: float = 4.0
    #: Between two of root's raw commands on average, seconds; 0: root keeps his hands off.
    root_every_s: float = 0.0
    #: Over the time the kills themselves need.
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Report:
    """What came of it."""

    said: dict[str, Any]
    faults: tuple[str, ...]

    @property
    def done(self) -> Counter[str]:
        """How often what was done."""
        return sum((Counter(p.get("done", {})) for p in self.said["people"]), Counter())

    @property
    def refused(self) -> Counter[str]:
        """How often what was refused."""
        return sum((Counter(p.get("refused", {})) for p in self.said["people"]), Counter())

    @property
    def by_root(self) -> Counter[str]:
        """How often root did what."""
        return Counter(self.said["root"].get("done", {}))

    def text(self) -> str:
        """For people."""
        said, people = self.said, self.said["people"]
        worst: dict[str, float] = {}
        for person in people:
            for verb, seconds in person.get("worst_s", {}).items():
                worst[verb] = max(worst.get(verb, 0.0), seconds)
        kills, early, engine_kills = said["kills"], said["early"], said["engine_kills"]
        lines = [
            f"kills of the daemon {kills}, {early} of them before it was ready; of the engine {engine_kills}",
            f"done: {_counts(self.done)}",
            f"by root, with the engine's own commands: {_counts(self.by_root) or 'nothing'}",
            f"refused: {_counts(self.refused) or 'nothing'}",
            "longest waits: " + ", ".join(f"{verb} {seconds} s" for verb, seconds in sorted(worst.items())),
            f"until the daemon was ready: {said['worst_ready_s']} s at most; the engine: {said['worst_engine_s']} s",
            *(f"FAULT {fault}" for fault in self.faults),
        ]
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {number}" for what, number in sorted(counter.items()))


@contextmanager
def place(
    *, image: str, live_restore: bool, policy: str = POLICY, prepare: Callable[[Server], None] = lambda _: None
) -> Iterator[House]:
    """A server with this engine, and the product in it; `prepare` does something to it before the daemon starts."""
    with Server(image=image, live_restore=live_restore, install=False) as server:
        prepare(server)
        server.install("--no-start")
        server.write("/etc/ds01/resource-limits.yaml", policy)
        server.write("/etc/ds01/ds01d.yaml", SETTINGS)
        server.exec("rm", "-rf", "/etc/ds01/groups")
        server.exec("systemctl", "start", "--no-block", "ds01d.service")
        server.daemon_up()
        yield House(server)


def run(server: Server, order: Order, steady: Callable[[], None] = lambda: None) -> Report:
    """The storm, and the judgement; `steady` ends what else disturbs the server before it is judged."""
    home = server.shared / "soak" / "tests"
    (home / "soak").mkdir(parents=True, exist_ok=True)
    for package in (home, home / "soak"):
        (package / "__init__.py").touch()
    for name in BROUGHT:
        shutil.copy(HERE / name, home / "soak" / name)
    spec = {
        "seed": order.seed,
        "kills": order.kills,
        "engine_kills": order.engine_kills,
        "live_restore": order.live_restore,
        "pause_s": order.pause_s,
        "calm_s": order.calm_s,
        "root_every_s": order.root_every_s,
    }
    done = server.exec(
        *("python3", "-B", "-m", "tests.soak.storm", json.dumps(spec)),
        env={"PYTHONPATH": "/host/soak", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        timeout=order.timeout_s,
    )
    steady()
    said: dict[str, Any] = json.loads(done.stdout)
    everybody = (*said["people"], said["root"])
    lost = [f"{p['user']} {p['lost']}\n{done.stderr[-3000:]}" for p in everybody if "lost" in p]
    surprises = [s for p in said["people"] for s in p.get("surprises", ())]
    faults = (*lost, *surprises, *_judge(server, said))
    if faults or "EVIDENCE" in os.environ:
        _keep_evidence(server, order, faults)
    return Report(said, faults)


def _keep_evidence(server: Server, order: Order, faults: tuple[str, ...]) -> None:
    """What explains it is gone with the box: the daemon's words and chronicle, the engine's words."""
    kept = Path(f"/var/tmp/ds01-storm-{order.seed}")  # for people to read
    kept.mkdir(exist_ok=True)
    (kept / "faults").write_text("\n".join(faults))
    (kept / "daemon").write_text(_journal(server, "ds01d.service"))
    (kept / "engine").write_text(_journal(server, "docker.service"))
    (kept / "events").write_text(server.exec("sh", "-c", "cat /var/log/ds01/*.jsonl*", check=False).stdout)
    print(f"what explains it is kept in {kept}")


def _journal(server: Server, unit: str) -> str:
    return server.exec("journalctl", "--no-pager", "--output", "short-precise", "--unit", unit).stdout


def _judge(server: Server, said: dict[str, Any]) -> list[str]:
    try:
        picture = agrees(server, 30)
    except AssertionError as error:
        return [str(error)]
    touched = frozenset(said["root"].get("touched", ()))
    found = [fault for person in said["people"] for fault in _expected(picture, person, touched)]
    try:
        until("systemd keeps no shell", lambda: _kept(server) == 0, 20)
    except TimeoutError:
        found.append(f"everybody went home, and systemd still keeps {_kept(server)} descriptors of shells")
    return found


def _expected(picture: Picture, person: dict[str, Any], touched: frozenset[str]) -> list[str]:
    """What a person knows, held against the ledger; of what root touched nobody knows anything but a removal."""
    there = {c["name"]: c for c in picture.containers.values() if c["user"] == person["user"]}
    known = {t["name"]: t for t in person.get("things", ())}
    found = []
    for name, thing in known.items():
        if f"{name}._.{USERS[person['user']]}" in touched:
            continue
        row = there.get(name)
        if row is None:
            if thing["there"]:
                found.append(f"{person['user']}'s {name} is lost")
            continue
        running = row["phase"] == "running"
        if thing["running"] is not None and thing["running"] != running:
            found.append(f"{person['user']}'s {name} is {row['phase']}: running should be {thing['running']}")
    found += [f"{person['user']}'s {name} was removed and is there" for name in person.get("gone", ()) if name in there]
    strangers = there.keys() - known.keys() - set(person.get("gone", ()))
    return found + [f"{person['user']} never asked for {name}" for name in sorted(strangers)]


def _kept(server: Server) -> int:
    shown = server.exec("systemctl", "show", "--property", "NFileDescriptorStore", "--value", "ds01d.service")
    return int(shown.stdout)
