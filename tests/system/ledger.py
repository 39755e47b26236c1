"""Whether everything that should agree does: the saved ledger, the engine, grants and specs on disk, cgroups, devices.

`agrees` waits until nothing is under way any more, and then judges one picture; it takes the daemon's word for nothing
but what is saved.
"""

import json
import time
from pathlib import Path
from typing import Any, Final

from tests.testbed.server import Server

_GATHER: Final = (Path(__file__).parent / "gather.py").read_text()


class Picture:
    """Everything at one moment; `gather.py` took it."""

    def __init__(self, server: Server) -> None:
        read: dict[str, Any] = json.loads(server.exec("python3", "-", input=_GATHER).stdout)
        self.lineage: str = read["saved"]["lineage"]
        self.schema: int = read["saved"]["schema"]
        tables: dict[str, dict[str, dict[str, Any]]] = read["saved"]["state"]["tables"]
        self.containers = tables["containers"]
        self.allocations = tables["allocations"]
        self.operations = tables["operations"]
        self.slots = tables["slots"]
        self.gpus = tables["gpus"]
        self.engine: dict[str, dict[str, Any]] = {c["Id"]: c for c in read["engine"]}
        self.devices: dict[int, set[str]] = {int(pid): set(found) for pid, found in read["devices"].items()}
        self.cgroups: dict[str, list[int]] = read["cgroups"]
        self.places: dict[str, str] = read["places"]
        self.grants: dict[str, str] = read["grants"]
        self.specs: dict[str, str] = {
            name.removeprefix("ds01-").removesuffix(".json"): text
            for name, text in read["specs"].items()
            if name.startswith("ds01-") and name != "ds01-driver.json"
        }
        #: What is half written, or was left half written.
        self.unfinished = [n for n in (*read["grants"], *read["specs"]) if n.endswith((".tmp", ".new"))]

    def allocation_of(self, container: str) -> dict[str, Any] | None:
        """The allocation of a record."""
        return next((a for a in self.allocations.values() if a["container"] == container), None)

    def busy(self) -> list[str]:
        """What is under way: orders, looks, releases without an obstacle, moves between phases."""
        found = []
        for c in self.containers.values():
            if c["order"] or c["look"] or c["ghost"] or c["blocks"]:
                found.append(f"{c['name']}: an order or a look is outstanding")
            elif c["phase"] not in {"stopped", "running"} and not c["frozen"]:
                found.append(f"{c['name']} is {c['phase']}")
        found += [f"{a['slots']} are being released" for a in self.allocations.values() if a["claim"] == "releasing"]
        return found

    def faults(self) -> list[str]:
        """Everything that does not agree, in words."""
        return [*self._laws(), *self._against_engine(), *self._permissions(), *self._in_use()]

    def _laws(self) -> list[str]:
        found, seen = [], set()
        for row in self.allocations.values():
            for slot in row["slots"]:
                if slot in seen:
                    found.append(f"{slot} is given twice")
                seen.add(slot)
            if row["container"] not in self.containers:
                found.append(f"allocation {row['id']} belongs to no container")
        owners = [a["container"] for a in self.allocations.values()]
        found += [f"{owner} has two allocations" for owner in set(owners) if owners.count(owner) > 1]
        for c in self.containers.values():
            a = self.allocation_of(c["id"])
            running_without = c["phase"] == "running" and c["spec"]["gpus"] is not None and a is None
            if running_without and c["violation"] is None:
                found.append(f"{c['name']} runs without an allocation")
            if a is not None and (a["claim"] == "held") != (a["deadline"] is not None):
                found.append(f"{c['name']}: a deadline is there exactly while held")
        found += [
            f"{c['name']} is frozen or confused" for c in self.containers.values() if c["confused"] or c["frozen"]
        ]
        return found

    def _against_engine(self) -> list[str]:
        found, known = [], set()
        for c in self.containers.values():
            known.add(c["engine_id"])
            there = self.engine.get(c["engine_id"])
            if there is None:
                found.append(f"{c['name']} is not on the engine")
                continue
            if there["Name"] != f"/{c['name']}._.{c['uid']}":
                found.append(f"{c['name']} is called {there['Name']}")
            running = there["State"]["Running"]
            if running != (c["phase"] == "running"):
                found.append(f"{c['name']} is {c['phase']}, and the engine says {there['State']['Status']}")
            occupied = bool(self.cgroups.get(c["engine_id"]))
            if occupied != running:
                found.append(f"{c['name']}: running {running}, but its cgroup has {self.cgroups.get(c['engine_id'])}")
        found += [
            f"{c['Name']} carries our label and has no record"
            for c in self.engine.values()
            if "ds01.id" in (c["Config"]["Labels"] or {}) and c["Id"] not in known
        ]
        return found

    def _permissions(self) -> list[str]:
        found, wanted = [], set()
        for c in self.containers.values():
            a = self.allocation_of(c["id"])
            gpu = c["spec"]["gpus"] is not None
            if gpu and (a is None or a["claim"] not in {"held", "bound"} or a["lost"]):
                continue
            wanted.add(c["key"])
            slots = a["slots"] if a is not None else []
            grant = self.grants.get(c["key"], "").splitlines()
            head = [c["engine_id"], c["generation"], ",".join(slots) or "-"]
            if not grant or grant[0].split() != head:
                found.append(f"{c['name']}: the grant says {grant[:1]}, the ledger {head}")
            mounts = c["spec"]["mounts"]
            today = [f"{self.places.get(m['source'])} {m['target']}" for m in mounts]
            made_with = [str(m["inode"]) for m in mounts]
            if grant[1:] != today or [p.split()[0].partition(":")[2] for p in grant[1:]] != made_with:
                found.append(f"{c['name']}: the grant's mounts are {grant[1:]}, the disk's {today}, inodes {made_with}")
            found += self._spec(c, slots)
        found += [f"a grant {key} that no record accounts for" for key in self.grants.keys() - wanted]
        found += [f"a spec {key} that no record accounts for" for key in self.specs.keys() - wanted]
        return found + [f"{name} is half written" for name in self.unfinished]

    def _spec(self, c: dict[str, Any], slots: list[str]) -> list[str]:
        if c["key"] not in self.specs:
            return [f"{c['name']} has no spec"]
        edits = json.loads(self.specs[c["key"]])["devices"][0]["containerEdits"]
        hook = edits["hooks"][0]["args"][1:]
        found = []
        if hook != [c["key"], c["engine_id"], c["generation"]]:
            found.append(f"{c['name']}: the guard is told {hook}")
        cards = {n["path"] for n in edits.get("deviceNodes", ()) if n["path"].removeprefix("/dev/nvidia").isdigit()}
        minors = {f"/dev/nvidia{minor}" for minor, _, _ in c["devices"]}
        if len({s.partition("/")[0] for s in slots}) != len(minors) or cards != minors:
            found.append(f"{c['name']}: the spec gives {sorted(cards)}, the ledger means {sorted(minors)} for {slots}")
        there = self.engine.get(c["engine_id"])
        if there is not None and there["State"]["Running"]:
            really = {f"/dev/{d}" for d in self.devices.get(there["State"]["Pid"], ()) if "/" not in d}
            if really != cards:
                found.append(f"{c['name']} runs with {sorted(really)}, its spec gives {sorted(cards)}")
        return found

    def _in_use(self) -> list[str]:
        """No two running containers of ours have one slot, whatever the ledger says."""
        having: dict[tuple[str, ...], str] = {}
        found = []
        for c in self.containers.values():
            there = self.engine.get(c["engine_id"])
            if there is None or not there["State"]["Running"] or c["spec"]["gpus"] is None:
                continue
            devices = self.devices.get(there["State"]["Pid"], set())
            caps = {d for d in devices if "/" in d}
            for thing in caps or devices:
                other = having.setdefault((thing,), c["name"])
                if other != c["name"]:
                    found.append(f"{other} and {c['name']} both have {thing}")
        return found


def settled(server: Server, timeout: float = 15) -> Picture:
    """A picture in which nothing is under way; `timeout` in seconds."""
    end = time.monotonic() + timeout
    while True:
        picture = Picture(server)
        busy = picture.busy()
        if not busy:
            return picture
        if time.monotonic() > end:
            raise AssertionError(f"it does not come to rest: {busy}\n{server.journal()[-4000:]}")
        time.sleep(0.1)


def agrees(server: Server, timeout: float = 15) -> Picture:
    """Wait until nothing is under way and everything agrees; else say what does not, and what the daemon said."""
    end = time.monotonic() + timeout
    while True:
        picture = settled(server, timeout)
        faults = picture.faults()
        if not faults:
            return picture
        if time.monotonic() > end:
            raise AssertionError("\n".join([*faults, "--- the daemon", server.journal()[-4000:]]))
        time.sleep(0.2)
