"""`ds01-run`: everything in one go, and nothing left behind that was not meant to be."""

import re
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01client.throwaway import made_up
from tests.clients.conftest import BIN, OnTerminal, Run
from tests.clients.daemon import FakeDaemon, Reply, environment, error
from tests.clients.test_shells import closed, frame


def test_a_command_in_a_container_of_its_own(run: Run, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=9)
    daemon.answers["container.create"] = Reply("x is made\nstart it: container-run x\n")
    daemon.answers["container.start"] = Reply("x runs\nopen a shell: container-run x\n")
    daemon.answers["container.remove"] = Reply("x is removed; GPU 0:1 is free again\n")
    daemon.hand_out = answering(daemon, b"result\n")

    done = run("ds01-run", "--rm", "-g", "2", "repo/pytorch:2.8", "--", "python", "x.py")

    assert (done.returncode, done.stdout) == (9, "result\n")
    assert done.stderr == "x is made\nx runs\nx is removed; GPU 0:1 is free again\n"
    create, start, shell, _, remove = daemon.asked
    assert [create.method, start.method, remove.method] == ["container.create", "container.start", "container.remove"]
    name = create.params["name"]
    assert re.fullmatch("pytorch-[0-9a-f]{4}", str(name))
    assert (create.params["image"], create.params["gpus"]) == ("repo/pytorch:2.8", 2)
    assert {start.params["name"], shell.params["name"], remove.params["name"]} == {name}
    assert shell.params["argv"] == ["python", "x.py"]
    assert remove.params["force"] is True


def test_without_rm_it_is_stopped_and_the_daemon_says_how_long_it_is_held(run: Run, daemon: FakeDaemon) -> None:
    daemon.shell()
    daemon.answers["container.stop"] = Reply(
        "x is stopped; held until 14:30\nfree it now: container-stop x --release\n"
    )
    daemon.hand_out = closed(daemon)

    done = run("ds01-run", "--name", "x", "bb", "--", "true")

    assert done.returncode == 0
    assert done.stderr.endswith("held until 14:30\nfree it now: container-stop x --release\n")
    assert daemon.asked[-1].params == {"name": "x"}


def test_what_cannot_be_made_leaves_nothing_to_remove(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.create"] = Reply("cannot: none is free\n", 75)

    done = run("ds01-run", "--rm", "bb", "--", "true")

    assert (done.returncode, done.stdout, done.stderr) == (75, "", "cannot: none is free\n")
    assert daemon.methods() == ["container.create"]


@pytest.mark.parametrize("step", ["container.start", "exec.start"])
def test_what_fails_on_the_way_is_removed_all_the_same(step: str, run: Run, daemon: FakeDaemon) -> None:
    daemon.shell()
    daemon.answers[step] = Reply("cannot\n", 1) if step == "container.start" else error("engine", 1, "cannot")

    done = run("ds01-run", "--rm", "bb", "--", "true")

    assert done.returncode == 125
    assert "cannot\n" in done.stderr
    assert daemon.methods()[-1] == "container.remove"


def test_a_removal_that_fails_says_what_is_left_to_do(run: Run, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=4)
    daemon.hand_out = closed(daemon)
    daemon.answers["container.remove"] = Reply("cannot remove x: the engine does not answer\n", 1)

    done = run("ds01-run", "--rm", "--name", "x", "bb", "--", "true")

    assert done.returncode == 4
    assert "`container-cleanup x --force` removes it" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_command_and_the_container_goes_too(number: signal.Signals, daemon: FakeDaemon) -> None:
    daemon.shell()
    process = subprocess.Popen(
        [str(BIN / "ds01-run"), "--rm", "bb", "--", "sleep", "9"],
        env=environment(daemon),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    engine = daemon.connection()
    engine.sendall(frame(1, b"begun"))
    assert process.stdout is not None
    assert process.stdout.read(5) == b"begun"

    process.send_signal(number)
    process.communicate(timeout=10)

    assert process.returncode == -number
    assert daemon.methods()[-1] == "container.remove"


def test_a_shell_in_a_container_of_its_own(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=1)

    with on_terminal("ds01-run", "bb") as terminal:
        engine = daemon.connection()
        terminal.wait_raw()
        engine.close()
        assert terminal.wait() == 1
        assert terminal.modes() == terminal.at_first

    assert daemon.methods() == ["container.create", "container.start", "exec.start", "exec.result", "container.stop"]
    assert "argv" not in daemon.asked[2].params


@given(st.text(max_size=300))
def test_a_name_that_is_made_up_is_a_name(image: str) -> None:
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,62}", made_up(image))


def answering(daemon: FakeDaemon, output: bytes) -> Callable[[socket.socket], None]:
    """Hands out a command that says this and ends."""

    def hand_out(client: socket.socket) -> None:
        daemon.hand_one(client)
        engine = daemon.connection()
        engine.sendall(frame(1, output))
        engine.close()

    return hand_out
