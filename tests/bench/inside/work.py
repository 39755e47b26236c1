"""Containers made and started: through the daemon, and by the engine's own two calls."""

import json
import os
import pwd
import signal
import time

from tests.bench.inside.door import DAEMON, ENGINE, REST_S, Door, main_pid

#: Of the containers that lie there: so many run on a slot, and so many are stopped and keep theirs.
RUNNING = 20
HELD = 12


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
    made = json.loads(engine.engine("GET", f"/containers/{engine_name('alice', name)}/json"))
    kept = ("User", "Env", "Cmd", "Image", "WorkingDir", "Entrypoint")
    body = {key: made["Config"][key] for key in kept} | {"HostConfig": made["HostConfig"]}
    body["HostConfig"]["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0:0"]}]
    return body


def engine_name(user: str, name: str) -> str:
    """What a user's container is called on the engine."""
    return f"{name}._.{pwd.getpwnam(user).pw_uid}"


def _through(daemon: Door, name: str) -> tuple[float, float]:
    began = time.perf_counter()
    daemon.call("container.create", name=name, image="bb", wait_s=60)
    created = time.perf_counter()
    daemon.call("container.start", name=name, wait_s=60)
    started = time.perf_counter()
    # Not with the grace of the policy: a first process that is told to end before it listens takes all of it.
    daemon.call("container.stop", name=name, grace_s=1, wait_s=60)
    daemon.call("container.remove", name=name, wait_s=60)
    return created - began, started - created


def _direct(engine: Door, body: dict[str, object]) -> tuple[float, float]:
    daemon = main_pid()
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


def fill(count: int) -> dict[str, int]:
    """So many containers of alice's: some run on a slot, some are stopped and keep theirs, the rest was never started.

    Gives the slot of each that runs with its first process.
    """
    daemon, engine = Door(DAEMON, "alice"), Door(ENGINE)
    found = {}
    for n in range(count):
        name = f"lies{n}"
        daemon.call("container.create", name=name, image="bb", cpu_only=n >= RUNNING + HELD, wait_s=60)
        if n >= RUNNING + HELD:
            continue
        made = daemon.call("container.start", name=name, wait_s=60)["container"]
        if n < RUNNING:
            seen = json.loads(engine.engine("GET", f"/containers/{engine_name('alice', name)}/json"))
            found[made["slots"][0]] = seen["State"]["Pid"]
        else:
            daemon.call("container.stop", name=name, grace_s=0, wait_s=60)
    return found
