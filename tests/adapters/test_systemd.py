"""What systemd hears, keeps and hands over, with a socket of the test's in its place."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.systemd import Notifier, inherited


class Systemd:
    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path.replace("@", "\0", 1) if path.startswith("@") else path)
        self.socket.settimeout(5)

    def hears(self) -> tuple[str, list[int]]:
        text, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        return text.decode(), fds


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@ds01-test-{os.getpid()}")
    with systemd.socket:
        yield systemd


def test_readiness_status_and_signs_of_life_are_said(systemd: Systemd) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "30000000", "FDSTORE": "512"})
    assert (notifier.listens, notifier.watchdog_s, notifier.kept) == (True, 15.0, 512)
    notifier.ready("two\nlines")
    notifier.status("now")
    notifier.watchdog()
    notifier.stopping()
    heard = [systemd.hears()[0] for _ in range(4)]
    assert heard == ["READY=1\nSTATUS=two lines", "STATUS=now", "WATCHDOG=1", "STOPPING=1"]
    notifier.close()


def test_descriptors_are_kept_under_a_name_and_forgotten(systemd: Systemd) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.path})
    reader, writer = os.pipe()
    notifier.store("exec-1", [writer])
    text, (kept,) = systemd.hears()
    assert text == "FDSTORE=1\nFDNAME=exec-1\nFDPOLL=0"
    os.close(writer)
    os.write(kept, b"still open")
    assert os.read(reader, 99) == b"still open"
    notifier.forget("exec-1")
    assert systemd.hears()[0] == "FDSTOREREMOVE=1\nFDNAME=exec-1"
    os.close(kept)
    os.close(reader)
    notifier.close()


async def test_a_barrier_returns_when_all_before_it_was_taken_in(systemd: Systemd) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.path})
    waiting = asyncio.create_task(notifier.barrier())
    text, (held,) = await asyncio.to_thread(systemd.hears)
    assert text == "BARRIER=1"
    await asyncio.sleep(0)
    assert not waiting.done()
    os.close(held)
    async with asyncio.timeout(5):
        await waiting
    notifier.close()


async def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier({})
    assert (notifier.listens, notifier.watchdog_s, notifier.kept) == (False, None, None)
    notifier.ready("up")
    notifier.store("exec-1", [0])
    await notifier.barrier()


def test_a_watchdog_that_is_for_another_process_is_not_fed() -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s is None


TAKE_OVER = """
import os, sys
from ds01d.adapters.systemd import inherited
for place, fd in enumerate(map(int, sys.argv[1:]), 3):
    os.dup2(fd, place)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "rpc:exec-1"}
taken = inherited(environ)
print([(name, os.read(fd, 9), os.get_inheritable(fd)) for name, fd in taken], environ, inherited(environ))
"""


def test_what_was_kept_is_taken_over_by_name_once() -> None:
    ends: list[int] = []
    for text in (b"a", b"b"):
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)
        # High, so that putting one in its place closes none of the others.
        ends.append(os.dup2(reader, 100 + len(ends)))
        os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", TAKE_OVER, *map(str, ends)], pass_fds=ends, capture_output=True, text=True, check=True
    )
    for fd in ends:
        os.close(fd)
    assert done.stdout.strip() == "[('rpc', b'a', False), ('exec-1', b'b', False)] {} ()"


def test_descriptors_for_another_process_are_not_ours() -> None:
    assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "rpc"}) == ()
