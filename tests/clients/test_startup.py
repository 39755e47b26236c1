"""A list of containers is on the screen before anybody notices: what the fast path imports, and what that costs."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.clients.conftest import BIN
from tests.clients.daemon import FakeDaemon, Reply, environment

#: Of ours, and of Python's what is built in.
ALLOWED = {
    "_socket",
    "posix",
    "time",
    "ds01client",
    *(f"ds01client.{m}" for m in ("containers", "launch", "options", "wire")),
}


@pytest.mark.parametrize(
    "line",
    [
        "container-list",
        "container-create a b",
        "container-start a",
        "container-stop a",
        "container-why a",
        "container-list -h",
    ],
)
def test_the_fast_path_imports_nothing_that_takes_time(line: str, daemon: FakeDaemon) -> None:
    assert imported(daemon, *line.split()) <= ALLOWED


def test_what_a_command_does_not_need_it_does_not_import(daemon: FakeDaemon) -> None:
    """The measure above can fail: a mistake brings difflib in, and is shown to."""
    assert "difflib" in imported(daemon, "container-list", "--al")


def imported(daemon: FakeDaemon, *words: str) -> set[str]:
    """What a command imports beyond what Python itself has already."""
    show = (
        "import sys; before = set(sys.modules); sys.argv = sys.argv[1:]\n"
        "import io\n"
        "source = open(sys.argv[0]).read(); code = compile(source, sys.argv[0], 'exec')\n"
        "try: exec(code, {'__file__': sys.argv[0], '__name__': '__main__'})\n"
        "finally: sys.stderr.write('\\n@' + '\\n@'.join(set(sys.modules) - before) + '\\n')\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", show, str(BIN / words[0]), *words[1:]],
        env=environment(daemon),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    found = {line[1:] for line in done.stderr.splitlines() if line.startswith("@")}
    assert "ds01client.wire" in found, done.stderr
    return found


def test_a_command_is_done_before_anybody_notices(daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = Reply("thesis running 0:1\n" * 100)

    assert min(timed(daemon) for _ in range(9)) < 0.1


def timed(daemon: FakeDaemon) -> float:
    """Seconds of one whole `container-list`."""
    began = time.perf_counter()
    subprocess.run([str(BIN / "container-list")], env=environment(daemon), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def test_it_is_python_itself_that_starts_each_command() -> None:
    first = (Path(BIN).parent / "lib" / "command").read_text().splitlines()[0]
    assert first == "#!/usr/bin/python3 -IS"
