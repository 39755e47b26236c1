"""Shells in the real engine, kept by a real systemd: they outlive the daemon, and hold no container up."""

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ds01d.core.events import Done
from ds01d.model.facts import EngineStatus
from tests.contract.made import Made
from tests.contract.real import RealWorld, Refusal
from tests.testbed.server import until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=[("trixie", True), ("engine28", False)], ids=["26.1-live-restore", "28.5"])
def world(request: pytest.FixtureRequest) -> Iterator[RealWorld]:
    image, live_restore = request.param
    with RealWorld(image, live_restore=live_restore) as world:
        yield world


@pytest.fixture
def made(world: RealWorld) -> Iterator[Made]:
    made = Made(world, start=True)
    yield made
    made.kill()
    until("its shells are gone", lambda: world.call("count") == 0, 20)


@pytest.fixture
def client() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that stands for the one a shell was handed to."""
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


class Shell(NamedTuple):
    exec_id: str
    connection: socket.socket

    def until_it_says(self, text: bytes, timeout_s: float = 10) -> bytes:
        heard, end = b"", time.monotonic() + timeout_s
        while text not in heard:
            ready, _, _ = select.select([self.connection], [], [], max(0, end - time.monotonic()))
            assert ready, heard
            part = self.connection.recv(65536)
            assert part, heard
            heard += part
        return heard


class Opened:
    """Opens shells of one client, and closes their connections in the end."""

    def __init__(self, world: RealWorld, made: Made, client: "subprocess.Popen[bytes]") -> None:
        self.world, self.made, self.client = world, made, client
        self.connections = contextlib.ExitStack()

    def __call__(self, *argv: str, tty: bool = True) -> Shell:
        said = self.world.call("shell", engine_id=self.made.engine_id, argv=argv, tty=tty)
        assert isinstance(said, dict)
        with holding(self.client) as pidfd:
            connection = self.world.claim(said["ticket"], pidfd)
        return Shell(said["exec_id"], self.connections.enter_context(connection))


@pytest.fixture
def opened(world: RealWorld, made: Made, client: "subprocess.Popen[bytes]") -> Iterator[Opened]:
    opened = Opened(world, made, client)
    with opened.connections:
        yield opened


@contextlib.contextmanager
def holding(client: "subprocess.Popen[bytes]") -> Iterator[int]:
    pidfd = os.pidfd_open(client.pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def result(world: RealWorld, shell: Shell | str) -> tuple[object, object]:
    said = world.call("result", exec_id=shell if isinstance(shell, str) else shell.exec_id)
    assert isinstance(said, dict)
    return said["running"], said["exit_code"]


Client = subprocess.Popen[bytes]


def test_a_terminal_has_the_size_it_is_told_and_the_users_rights(world: RealWorld, opened: Opened) -> None:
    shell = opened("sh", "-c", "id -u; stty size; echo $ANSWER; read x; stty size; exit 3")
    heard = shell.until_it_says(b"42")
    assert b"1001" in heard
    assert b"24 80" in heard
    world.call("resize", exec_id=shell.exec_id)
    shell.connection.sendall(b"\n")
    shell.until_it_says(b"11 22")
    until("it has ended", lambda: result(world, shell) == (False, 3), 5)
    until("it is forgotten", lambda: world.call("count") == 0, 5)


def test_without_a_terminal_the_end_of_stdin_is_told_and_stderr_stays_apart(world: RealWorld, opened: Opened) -> None:
    shell = opened("sh", "-c", "cat; echo no >&2; exit 4", tty=False)
    shell.connection.sendall(b"word\n")
    shell.connection.shutdown(socket.SHUT_WR)
    out, err = b"\1\0\0\0\0\0\0\5word\n", b"\2\0\0\0\0\0\0\3no\n"
    # The engine copies the two side by side: either may come first.
    heard = shell.until_it_says(err)
    heard += b"" if out in heard else shell.until_it_says(out)
    assert heard in {out + err, err + out}
    until("it has ended", lambda: result(world, shell) == (False, 4), 5)


@pytest.mark.parametrize("program", ["/nonexistent", "/proc/1/status"])
def test_a_command_that_cannot_be_run_ends_with_its_code(world: RealWorld, program: str, opened: Opened) -> None:
    shell = opened(program, tty=False)
    until("it has ended", lambda: result(world, shell)[0] is False, 5)
    assert result(world, shell)[1] in (126, 127)


def test_a_ticket_is_good_once_and_for_its_owner(world: RealWorld, made: Made, client: Client) -> None:
    said = world.call("shell", engine_id=made.engine_id, argv=["cat"], tty=True)
    assert isinstance(said, dict)
    with holding(client) as pidfd:
        with pytest.raises(Refusal, match="no such ticket"):
            world.claim(said["ticket"], pidfd, uid=1002)
        with world.claim(said["ticket"], pidfd), pytest.raises(Refusal, match="no such ticket"):
            world.claim(said["ticket"], pidfd)


def test_a_ticket_that_nobody_uses_ends_its_shell(world: RealWorld, made: Made) -> None:
    said = world.call("shell", engine_id=made.engine_id, argv=["sleep", "300"], tty=True)
    assert isinstance(said, dict)
    shell = said["exec_id"]
    assert result(world, shell) == (True, None)
    until("its process is gone", lambda: result(world, shell)[0] is False, 12)


def test_a_client_that_dies_takes_its_shell_along(world: RealWorld, client: Client, opened: Opened) -> None:
    # The shell holds the connection open, as a forgotten child of a client would.
    shell = opened("sh", "-c", "trap '' HUP; echo up; while :; do sleep 1; done")
    shell.until_it_says(b"up")
    client.kill()
    client.wait()
    until("SIGHUP was ignored, SIGKILL was not", lambda: result(world, shell) == (False, 137), 12)


def test_a_client_that_does_not_read_holds_the_end_back_until_it_is_cut(
    world: RealWorld, made: Made, opened: Opened
) -> None:
    opened("yes", "0123456789012345678901234567890123456789", tty=False)
    world.server.stuck("yes")
    # Past the engine: its own kill would wait ten seconds for the end that it does not hear of.
    world.server.exec("kill", "-KILL", world.server.init_of(made.engine_id))
    until("its first process has ended", lambda: made.look().init_alive is False, 5)
    assert made.look().status is EngineStatus.RUNNING
    assert world.call("cut", engine_id=made.engine_id) == 1
    until("the engine has noticed", lambda: made.look().status is EngineStatus.STOPPED, 5)


def test_one_user_has_twenty_shells_and_no_more(world: RealWorld, client: Client, opened: Opened) -> None:
    shells = [opened("cat") for _ in range(20)]
    with pytest.raises(Refusal, match="cannot open another shell: you have 20"):
        opened("cat")
    shells[0].connection.sendall(b"\4")  # end of file, as typed
    until("there is room again", lambda: world.call("count") == 19, 5)
    shells.append(opened("cat"))
    client.kill()


def test_a_shell_in_a_stopped_container_is_refused(world: RealWorld) -> None:
    made = Made(world)
    with pytest.raises(Refusal, match="cannot open a shell"):
        world.call("shell", engine_id=made.engine_id, argv=["sh"], tty=True)


def test_shells_outlive_the_daemon_and_its_successor_can_cut_them(world: RealWorld, made: Made, opened: Opened) -> None:
    shell = opened("cat")
    world.kill_agent()
    shell.connection.sendall(b"still there\n")
    shell.until_it_says(b"still there")
    assert world.call("count") == 1
    assert world.call("cut", engine_id=made.engine_id) == 1
    until("it has ended", lambda: result(world, shell)[0] is False, 12)


def test_a_client_that_dies_while_the_daemon_is_away_takes_its_shell_along(
    world: RealWorld, client: Client, opened: Opened
) -> None:
    shell = opened("sleep", "300")
    client.kill()
    client.wait()
    world.kill_agent()
    until("its process is gone", lambda: result(world, shell)[0] is False, 12)


def test_a_client_that_dies_before_its_process_was_started_takes_it_along(
    world: RealWorld, client: Client, opened: Opened
) -> None:
    world.server.exec("pkill", "-STOP", "-x", "containerd")
    try:
        shell = opened("sleep", "300")
        client.kill()
        client.wait()
        until("its end is heard", lambda: world.call("count") == 0, 5)
    finally:
        world.server.exec("pkill", "-CONT", "-x", "containerd")
    until("it was started, and has ended", lambda: result(world, shell)[0] is False, 12)
    assert result(world, shell) == (False, 129)


def test_a_shell_that_nobody_had_fetched_ends_with_the_daemon(world: RealWorld, made: Made) -> None:
    said = world.call("shell", engine_id=made.engine_id, argv=["sleep", "300"], tty=True)
    assert isinstance(said, dict)
    world.kill_agent()
    shell = said["exec_id"]
    until("its process is gone", lambda: result(world, shell)[0] is False, 12)


def test_systemd_keeps_nothing_of_shells_that_are_over(world: RealWorld, opened: Opened) -> None:
    shell = opened("cat")
    assert stored(world) == 2
    shell.connection.sendall(b"\4")
    until("systemd has let go", lambda: stored(world) == 0, 5)


def stored(world: RealWorld) -> int:
    shown = world.server.exec("systemctl", "show", "--property", "NFileDescriptorStore", "--value", "agent.service")
    return int(shown.stdout)


def test_a_stop_does_not_wait_for_idle_shells(world: RealWorld, made: Made, opened: Opened) -> None:
    opened("sh")
    assert isinstance(made.stop(grace_s=10), Done)
    assert made.look().exit_code == 0
    until("it is forgotten", lambda: world.call("count") == 0, 5)
