"""What the tests of the commands share: a daemon to talk to, and a way to run a command beside it."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.daemon import FakeDaemon, environment
from tests.clients.terminal import Terminal

BIN = Path(__file__).resolve().parents[2] / "clients" / "bin"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
OnTerminal = Callable[..., Terminal]


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """A daemon that runs; its directory's name is short, as a socket's has to be."""
    with tempfile.TemporaryDirectory(prefix="ds01-") as directory, FakeDaemon(Path(directory)) as fake:
        yield fake


@pytest.fixture
def run(daemon: FakeDaemon) -> Run:
    """Run a command without a terminal."""

    def command(*words: str, stdin: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            env=environment(daemon, **env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return command


@pytest.fixture
def on_terminal(daemon: FakeDaemon) -> OnTerminal:
    """Run a command on a terminal."""

    def command(*words: str, **env: str) -> Terminal:
        return Terminal([str(BIN / words[0]), *words[1:]], environment(daemon, **env))

    return command
