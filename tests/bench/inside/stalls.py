"""How long the daemon's event loop keeps everybody waiting, while it scans, saves and lists at its busiest."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.inside.door import DAEMON, UNIT, Door
from tests.bench.inside.turns import Ticks

_DROP_IN = Path(f"/run/systemd/system/{UNIT}.d/bench.conf")
_UNIT = """\
[Service]
Environment=PYTHONPATH=/usr/lib/ds01/python:/host/bench
ExecStart=
ExecStart=/usr/bin/python3 -s -P -B -m tests.bench.inside.turns /run/ds01/ticks
"""
_SETTINGS = Path("/etc/ds01/ds01d.yaml")
#: As often as the settings allow.
_BUSY = "intervals: {nvml: 1s, listing: 1s}\n"
#: So many of the asked-for things a second.
_PER_S = 20


def stalls(seconds: int) -> dict[str, dict[str, list[float]]]:
    """How late each tick came, for so many seconds of each kind of work, in the daemon and in a bare loop beside it."""
    before = _SETTINGS.read_text("utf-8")
    _SETTINGS.write_text(_BUSY, "utf-8")
    _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    _DROP_IN.write_text(_UNIT, "utf-8")
    _restart()
    bare_file = Path("/run/ticks-bare")
    bare = subprocess.Popen([sys.executable, "-B", "-m", "tests.bench.inside.turns", "--bare", str(bare_file)])
    try:
        alice = Door(DAEMON, "alice")
        # A stop of what is stopped is answered once it is saved, and nothing else comes of it.
        work: dict[str, Callable[[], object]] = {
            "scans and engine listings, 1 a second": lambda: None,
            f"and {_PER_S} saves a second": lambda: alice.call("container.stop", name="lies99"),
            f"and {_PER_S} container.list a second": lambda: alice.call("container.list"),
        }
        return {name: _late(one, seconds, bare_file) for name, one in work.items()}
    finally:
        bare.kill()
        bare.wait()
        _SETTINGS.write_text(before, "utf-8")
        _DROP_IN.unlink()
        _restart()


def _late(work: Callable[[], object], seconds: int, bare_file: Path) -> dict[str, list[float]]:
    time.sleep(1)
    began = time.monotonic()
    end = began + seconds
    n = 0
    while time.monotonic() < end:
        work()
        n += 1
        time.sleep(max(0.0, began + n / _PER_S - time.monotonic()))
    found = {"daemon": Ticks(Path("/run/ds01/ticks")), "bare": Ticks(bare_file)}
    return {name: ticks.between(began, end) for name, ticks in found.items()}


def _restart() -> None:
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "restart", UNIT], check=True)
