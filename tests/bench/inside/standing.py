"""The daemon as it stands there: its memory, what it costs while nobody asks, and how soon it is ready."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.bench.inside.door import UNIT, children, cpu_s, main_pid

_ENGINE_UNIT = "docker.service"
_ENGINE_CONFIG = Path("/etc/docker/daemon.json")
#: After the engine was told to write down its calls, before the count begins; seconds.
_SETTLE_S = 4.0


def memory(_: int) -> dict[str, dict[str, int]]:
    """Resident and proportional memory of the daemon and its children, KiB."""
    main = main_pid()
    found = {"daemon": _memory(main)}
    for child in children(main):
        name = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found[f"{name[-2].decode().removeprefix('ds01d.adapters.')} (process {child})"] = _memory(child)
    return found


def _memory(pid: int) -> dict[str, int]:
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]]
    figures = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return {"rss": figures["Rss"], "pss": figures["Pss"]}


def ready(rounds: int) -> list[float]:
    """From `systemctl start` to READY, as that command waits for it; seconds."""
    found = []
    for _ in range(rounds):
        subprocess.run(["systemctl", "stop", UNIT], check=True)
        began = time.perf_counter()
        subprocess.run(["systemctl", "start", UNIT], check=True)
        found.append(time.perf_counter() - began)
    return found


def poll(seconds: int) -> dict[str, dict[str, float]]:
    """Processor time of daemon, child and engine over so many seconds, and how often the engine was asked for what.

    The engine writes its calls down itself, while it is told to.
    """
    before = _ENGINE_CONFIG.read_text("utf-8")
    _ENGINE_CONFIG.write_text(json.dumps(json.loads(before) | {"debug": True}), "utf-8")
    engine = main_pid(_ENGINE_UNIT)
    os.kill(engine, signal.SIGHUP)
    try:
        time.sleep(_SETTLE_S)
        daemon = main_pid()
        who = {"daemon": daemon, "engine": engine} | {f"child {pid}": pid for pid in children(daemon)}
        since, began = time.time(), time.perf_counter()
        spent = {name: cpu_s(pid) for name, pid in who.items()}
        time.sleep(seconds)
        spent = {name: cpu_s(pid) - spent[name] for name, pid in who.items()}
        took = time.perf_counter() - began
        return {"cpu": spent, "took": {"s": took}, "calls": _calls(since, since + took)}
    finally:
        _ENGINE_CONFIG.write_text(before, "utf-8")
        os.kill(engine, signal.SIGHUP)


def _calls(since: float, until: float) -> dict[str, float]:
    """What the engine was asked between two moments, and how often. Ids are left out: one inspect is like another."""
    command = ["journalctl", "--unit", _ENGINE_UNIT, "--output", "cat", "--since", f"@{since}", "--until", f"@{until}"]
    found: dict[str, float] = {}
    for line in subprocess.check_output(command, text=True).splitlines():
        # Docker 26 writes `Calling GET /v1.45/…`, 28 `handling GET request`, with the path in a field of its own.
        words = line.split('"')
        said = next((word for word in words if word.startswith("Calling ")), None)
        if said is None:
            continue
        path = said.split()[2].partition("?")[0].split("/")
        shown = "/".join("ID" if len(part) == 64 else part for part in path if not part.startswith("v1."))
        found[shown] = found.get(shown, 0) + 1
    return found
