"""`ds01ctl events --follow`: what happens, as it happens, until one has seen enough."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.clients.conftest import BIN
from tests.clients.daemon import FakeDaemon, environment

EVENTS = [
    {"timestamp": "2026-11-20T14:20:00Z", "event_type": "gpu.allocated", "user": "alice",
     "details": {"container": "thesis", "slots": ["0:1", "0:2"], "gpueq": 0.2857142, "until": 1795186200.25,
                 "why": "asked"}},
    {"timestamp": "2026-11-20T14:21:00Z", "event_type": "container.started", "user": "bob",
     "details": {"container": "vision", "trap": "\x1b[2J"}},
]  # fmt: skip


@contextmanager
def following(daemon: FakeDaemon, *words: str) -> Iterator["subprocess.Popen[str]"]:
    daemon.events = [b"\n", *[json.dumps(e).encode() + b"\n" for e in EVENTS], b"no json\n", b'"odd"\n']
    process = subprocess.Popen(
        [str(BIN / "ds01ctl"), "events", "--follow", *words],
        env=environment(daemon),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def lines(process: "subprocess.Popen[str]", count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def test_events_are_shown_in_a_line_each_and_nothing_in_them_moves_the_terminal(daemon: FakeDaemon) -> None:
    with following(daemon) as process:
        first, second = lines(process, 2)
        line = "2026-11-20 14:20:00 gpu.allocated alice thesis GPU 0:1,0:2, until 2026-11-20 14:50: asked"
        assert " ".join(first.split()) == line
        assert second == "2026-11-20 14:21:00  container.started    bob       vision        trap \\x1b[2J\n"

    assert daemon.asked[0].line == "GET /events HTTP/1.1"


def test_as_json_they_come_as_they_are(daemon: FakeDaemon) -> None:
    with following(daemon, "--json") as process:
        assert [json.loads(line) for line in lines(process, 2)] == EVENTS


def test_only_what_was_asked_for_is_shown(daemon: FakeDaemon) -> None:
    for words in (["--user", "bob"], ["--type", "container"], ["--container", "vision"]):
        with following(daemon, *words) as process:
            assert "vision" in lines(process, 1)[0]


def test_a_daemon_that_goes_away_is_waited_for(daemon: FakeDaemon) -> None:
    with following(daemon) as process:
        lines(process, 2)
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        assert "gpu.allocated" in lines(process, 1)[0]

    assert len(daemon.asked) >= 2


def test_without_a_daemon_there_is_nothing_to_follow(daemon: FakeDaemon) -> None:
    daemon.stop()

    with following(daemon) as process:
        assert process.wait(10) == 69
