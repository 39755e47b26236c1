"""Runs inside a box: one picture of everything that should agree, as JSON on stdout. It judges nothing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def _engine() -> list[object]:
    ids = subprocess.run(["docker", "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True).stdout
    if not ids.split():
        return []
    # One that is removed meanwhile is an error of docker's, and missing in what it prints.
    done = subprocess.run(["docker", "inspect", *ids.split()], capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout))


def _texts(directory: str) -> dict[str, str]:
    return {p.name: p.read_text() for p in Path(directory).iterdir() if p.is_file()}


def _cgroups() -> dict[str, list[int]]:
    """Container id → pids in its cgroup, over all hierarchies and below it."""
    found: dict[str, set[int]] = {}
    for top, _, files in os.walk("/sys/fs/cgroup"):
        ids = [part[7:-6] for part in Path(top).parts if part.startswith("docker-") and part.endswith(".scope")]
        if not ids or "cgroup.procs" not in files:
            continue
        try:
            pids = (Path(top) / "cgroup.procs").read_text().split()
        except OSError:
            continue
        found.setdefault(ids[0], set()).update(map(int, pids))
    return {name: sorted(pids) for name, pids in found.items()}


def _devices(pid: int) -> list[str]:
    """The GPU nodes that a container really has."""
    dev = Path(f"/proc/{pid}/root/dev")
    try:
        return sorted(str(p.relative_to(dev)) for p in (*dev.glob("nvidia[0-9]*"), *dev.glob("nvidia-caps/*")))
    except OSError:
        return []


def _places(saved: dict[str, Any]) -> dict[str, str]:
    """What stands today behind the directories that containers were made with."""
    found = {}
    for container in saved["state"]["tables"]["containers"].values():
        for mount in container["spec"]["mounts"]:
            try:
                there = Path(mount["source"]).lstat()
            except OSError:
                continue
            found[mount["source"]] = f"{there.st_dev}:{there.st_ino}"
    return found


def main() -> None:
    """Engine first: what it says is the oldest part of the picture."""
    engine = _engine()
    saved = json.loads(Path("/var/lib/ds01/gpu-state.json").read_text())
    pids = [c["State"]["Pid"] for c in engine if isinstance(c, dict) and c["State"]["Pid"]]
    print(
        json.dumps(
            {
                "engine": engine,
                "devices": {pid: _devices(pid) for pid in pids},
                "cgroups": _cgroups(),
                "grants": _texts("/run/ds01/grant"),
                "specs": _texts("/run/cdi"),
                "places": _places(saved),
                "saved": saved,
            }
        )
    )


main()
