"""From an event on the engine to what people are shown, alone and beside two who write to the same disk."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.inside.door import DAEMON, ENGINE, REST_S, Door
from tests.bench.inside.work import engine_name

_NAME = "victim"
#: Between two listings; 200 a second are the limit.
_PAUSE_S = 0.002
_PATIENCE_S = 30.0
#: Rounds with and without the writers take turns in blocks of so many.
_BLOCK = 5
_WRITER = """
import os, sys
block = os.urandom(1 << 20)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
while True:
    os.pwrite(file, block, 0)
    os.fsync(file)
"""


def view(rounds: int) -> dict[str, list[float]]:
    """Seconds from the return of the engine's kill until a listing shows the end; so many each way."""
    daemon, engine = Door(DAEMON, "bob"), Door(ENGINE)
    daemon.call("container.create", name=_NAME, image="bb", wait_s=60)
    found: dict[str, list[float]] = {"alone": [], "beside two that write": [], "kill": []}
    with _writers() as writers:
        for n in range(2 * rounds):
            how = "beside two that write" if n // _BLOCK % 2 else "alone"
            if n % _BLOCK == 0:
                for writer in writers:
                    writer.send_signal(signal.SIGCONT if n // _BLOCK % 2 else signal.SIGSTOP)
            daemon.call("container.start", name=_NAME, wait_s=60)
            time.sleep(REST_S)
            began = time.perf_counter()
            engine.engine("POST", f"/containers/{engine_name('bob', _NAME)}/kill")
            killed = time.perf_counter()
            found[how].append(_until_shown(daemon, killed))
            found["kill"].append(killed - began)
    daemon.call("container.remove", name=_NAME, wait_s=60)
    return found


def _until_shown(daemon: Door, since: float) -> float:
    while True:
        shown = daemon.call("container.list")["containers"]
        took = time.perf_counter() - since
        if [c["status"] for c in shown] == ["stopped"]:
            return took
        if took > _PATIENCE_S:
            raise RuntimeError(f"the end of {_NAME} is never shown: {shown}")
        time.sleep(_PAUSE_S)


@contextmanager
def _writers() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two processes that write a MiB and wait for the disk, over and over, where the daemon's state lies; stopped."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as there:
        started = [subprocess.Popen([sys.executable, "-IS", "-c", _WRITER, str(Path(there, str(n)))]) for n in range(2)]
        try:
            for writer in started:
                writer.send_signal(signal.SIGSTOP)
            yield started
        finally:
            for writer in started:
                os.kill(writer.pid, signal.SIGKILL)
                writer.wait()
