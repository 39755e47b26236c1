"""The storm itself, inside the box: three people at work, and SIGKILL for the daemon and the engine at random moments.

`python3 -m tests.soak.storm SPEC` takes a JSON object, prints one when everybody has gone home. Standard library only.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ctypes import c_int
from functools import partial
from pathlib import Path
from typing import Any

from tests.soak.person import TOUCHED, Flags, Person
from tests.soak.root import Root

USERS = ("alice", "bob", "carol")
DAEMON, ENGINE = "ds01d.service", "docker.service"
ENGINE_SOCKET = "/run/docker.sock"
#: How many kills find the daemon in the middle of its start; the others wait until it is ready.
EARLY = 0.3
#: How often memory is looked at, seconds.
SAMPLE_S = 20.0
#: Everybody has to be home by then, seconds.
HOME_S = 150.0


class Killer:
    """Kills at random moments, and takes down what it saw."""

    def __init__(self, seed: str, flags: Flags, *, pause_s: float) -> None:
        self._random = random.Random(f"{seed}/killer")
        self._flags = flags
        self._pause_s = pause_s
        self._began = time.monotonic()
        self._sampled = -SAMPLE_S
        self._killed = 0
        self.kills = self.early = self.engine_kills = 0
        self.worst_ready_s = self.worst_engine_s = 0.0
        #: (seconds since the beginning, age of the daemon in seconds, its memory in KiB, kept descriptors).
        self.samples: list[tuple[float, float, int, int]] = []

    def kill_daemon(self) -> None:
        """Wait a little, and kill; some of the time before it is ready."""
        early = self._random.random() < EARLY
        pid = self._running(early=early)
        time.sleep(self._random.uniform(0, 0.6) if early else self._random.uniform(0, 2 * self._pause_s))
        self.sample()
        self._flags.daemon.value += 1
        os.kill(pid, signal.SIGKILL)
        self._killed = pid
        self.kills += 1
        self.early += early

    def kill_engine(self) -> None:
        """Kill the engine, and wait until it answers again."""
        began = time.monotonic()
        pid = _main_pid(ENGINE)
        if not pid:
            return
        self._flags.engine.value += 1
        os.kill(pid, signal.SIGKILL)
        while not _answers() or _main_pid(ENGINE) in {0, pid}:
            if time.monotonic() - began > 60:
                raise TimeoutError("the engine does not come back")
            time.sleep(0.05)
        self._flags.engine.value += 1
        self.engine_kills += 1
        self.worst_engine_s = max(self.worst_engine_s, round(time.monotonic() - began, 2))

    def calm(self, seconds: float) -> None:
        """Let everybody work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sample()
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def sample(self) -> None:
        """Look at the daemon's memory, now and then."""
        now = time.monotonic() - self._began
        if now - self._sampled < SAMPLE_S:
            return
        pid = _main_pid(DAEMON)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            return
        self._sampled = now
        up = float(Path("/proc/uptime").read_text().split()[0]) - int(stat[19]) / os.sysconf("SC_CLK_TCK")
        kept = int(_show(DAEMON, "NFileDescriptorStore") or 0)
        self.samples.append((round(now, 1), round(up, 1), pages * os.sysconf("SC_PAGE_SIZE") // 1024, kept))

    def _running(self, *, early: bool) -> int:
        began = time.monotonic()
        while True:
            pid = _main_pid(DAEMON)
            if pid not in {0, self._killed} and (early or _show(DAEMON, "ActiveState") == "active"):
                break
            if time.monotonic() - began > 60:
                raise TimeoutError("the daemon does not come back")
            time.sleep(0.02)
        if not early:
            self.worst_ready_s = max(self.worst_ready_s, round(time.monotonic() - began, 2))
        return pid


def _show(unit: str, key: str) -> str:
    return subprocess.check_output(["systemctl", "show", "--property", key, "--value", unit], text=True).strip()


def _main_pid(unit: str) -> int:
    return int(_show(unit, "MainPID") or 0)


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(2)
        try:
            engine.connect(ENGINE_SOCKET)
            engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in engine.recv(64)
        except OSError:
            return False


class Away:
    """Somebody at work in a process of his own, who sends home what he reports."""

    def __init__(self, user: str, work: Callable[[], dict[str, object]]) -> None:
        self.user = user
        fork = multiprocessing.get_context("fork")
        self._home, there = fork.Pipe()
        self._process = fork.Process(target=lambda: there.send(work()))
        self._process.start()
        there.close()

    def back(self, end: float) -> dict[str, object]:
        """His report, or that he is lost."""
        try:
            came = self._home.poll(max(0.0, end - time.monotonic()))
            said: Any = self._home.recv() if came else {"user": self.user, "lost": "never came home"}
        except EOFError:
            said = {"user": self.user, "lost": "ended with an error; its words are above"}
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
        return dict(said)


def _life(person: Person) -> dict[str, object]:
    person.become()
    try:
        person.live()
        return person.report()
    finally:
        person.leave()


def _rule(root: Root) -> dict[str, object]:
    root.live()
    return root.report()


def storm(spec: dict[str, object]) -> dict[str, object]:
    """One storm as it was ordered; what came of it."""
    seed, kills, engine_kills = str(spec["seed"]), int(str(spec["kills"])), int(str(spec["engine_kills"]))
    fork = multiprocessing.get_context("fork")
    flags = Flags(fork.RawValue(c_int, 0), fork.RawValue(c_int, 0), fork.RawValue(c_int, 0))
    killer = Killer(seed, flags, pause_s=float(str(spec["pause_s"])))
    TOUCHED.unlink(missing_ok=True)
    survives, root_every_s = bool(spec["live_restore"]), float(str(spec["root_every_s"]))
    away = [Away(user, partial(_life, Person(user, seed, flags, survives=survives))) for user in USERS]
    if root_every_s:
        away.append(Away("root", partial(_rule, Root(seed, flags, every_s=root_every_s))))
    killer.calm(2.0)
    order = random.Random(f"{seed}/order")
    engine_at = set(order.sample(range(kills), min(engine_kills, kills)))
    try:
        for n in range(kills):
            if n in engine_at:
                killer.kill_engine()
            killer.kill_daemon()
        killer.calm(float(str(spec["calm_s"])))
    finally:
        flags.over.value = 1
    end = time.monotonic() + HOME_S
    reports = {one.user: one.back(end) for one in away}
    root = reports.pop("root", {})
    return {
        "kills": killer.kills,
        "early": killer.early,
        "engine_kills": killer.engine_kills,
        "worst_ready_s": killer.worst_ready_s,
        "worst_engine_s": killer.worst_engine_s,
        "samples": killer.samples,
        "people": list(reports.values()),
        "root": root,
    }


if __name__ == "__main__":
    print(json.dumps(storm(json.loads(sys.argv[1]))))
