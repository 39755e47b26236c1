"""Shells and commands: keys and output pass, sizes are told, the exit code comes back, the terminal is as it was."""

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.clients.conftest import BIN, OnTerminal, Run
from tests.clients.daemon import FakeDaemon, Reply, environment, error, result
from tests.clients.terminal import Terminal


def frame(stream: int, data: bytes) -> bytes:
    """As the engine packs it where there is no terminal."""
    return struct.pack(">BxxxL", stream, len(data)) + data


def until(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes up to something."""
    seen = b""
    while wanted not in seen:
        piece = connection.recv(65536)
        assert piece, f"the end came after {seen!r}"
        seen += piece
    return seen


def to_the_end(connection: socket.socket) -> bytes:
    """All that comes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def shell_in(on_terminal: OnTerminal, daemon: FakeDaemon, *words: str) -> Iterator[tuple[Terminal, socket.socket]]:
    """A shell that is open on a terminal, and the engine's end of it."""
    with on_terminal(*(words or ("container-run", "thesis"))) as terminal:
        connection = daemon.connection()
        terminal.wait_raw()
        yield terminal, connection


def test_a_shell_passes_keys_and_output_as_they_are(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=7)

    with shell_in(on_terminal, daemon) as (terminal, engine):
        terminal.type("ls\r\x03\x1a\x11\x1c\x04")
        assert until(engine, b"\x04") == b"ls\r\x03\x1a\x11\x1c\x04"
        engine.sendall(b"a\nb\r\n\x1b[31mred")
        terminal.expect("a\nb\r\n\x1b\\[31mred")
        engine.close()
        assert terminal.wait() == 7
        assert terminal.modes() == terminal.at_first

    started = daemon.asked[0]
    assert started.method == "exec.start"
    assert started.params["name"] == "thesis"
    assert (started.params["tty"], started.params["rows"], started.params["cols"]) == (True, 40, 132)
    assert "argv" not in started.params
    assert started.params["env"] == {"TERM": "xterm", "LANG": "C.UTF-8"}
    assert daemon.tickets == ["t1"]


def test_a_container_that_does_not_run_is_started_first(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell()
    shell = daemon.answers["exec.start"]
    daemon.answers["exec.start"] = error("wrong_phase", 1)

    def start(_params: dict[str, object]) -> Reply:
        daemon.answers["exec.start"] = shell
        return Reply("thesis runs on GPU 0:1\nopen a shell in it: container-run thesis\n")

    daemon.answers["container.start"] = start
    with shell_in(on_terminal, daemon) as (terminal, engine):
        engine.close()
        assert terminal.wait() == 0

    assert daemon.methods()[:3] == ["exec.start", "container.start", "exec.start"]
    assert "thesis runs on GPU 0:1\r\n" in terminal.output
    assert "open a shell in it" not in terminal.output


def test_a_start_that_is_refused_opens_nothing(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["exec.start"] = error("wrong_phase", 1)
    daemon.answers["container.start"] = Reply("cannot start thesis: no GPU is free\nhint: wait\n", 75)

    with on_terminal("container-run", "thesis") as terminal:
        terminal.expect("no GPU is free\r\nhint: wait")
        assert terminal.wait() == 75


def test_a_shell_that_is_refused_for_another_reason_starts_nothing(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["exec.start"] = error(
        "not_found", 4, "cannot find a container called thesis", "see `container-list`"
    )

    with on_terminal("container-run", "thesis") as terminal:
        terminal.expect("cannot find a container called thesis\r\nhint: see `container-list`")
        assert terminal.wait() == 4

    assert daemon.methods() == ["exec.start"]


def test_a_new_size_is_told(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell()
    daemon.answers["exec.resize"] = result({})

    with shell_in(on_terminal, daemon) as (terminal, engine):
        terminal.resize(50, 160)
        eventually(lambda: "exec.resize" in daemon.methods())
        engine.close()
        assert terminal.wait() == 0

    told = [a.params for a in daemon.asked if a.method == "exec.resize"]
    assert told == [{"exec": "e1", "rows": 50, "cols": 160}]


def test_a_shell_and_its_size_outlive_a_daemon_that_restarts(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=3)

    with shell_in(on_terminal, daemon) as (terminal, engine):
        daemon.stop()
        terminal.resize(51, 161)
        terminal.type("x")
        assert until(engine, b"x") == b"x"
        engine.sendall(b"still here")
        terminal.expect("still here")
        daemon.start()
        eventually(lambda: "exec.resize" in daemon.methods())
        daemon.stop()
        engine.close()
        terminal.expect("waiting for ds01d to tell how it ended")
        daemon.start()
        assert terminal.wait() == 3
        assert terminal.modes() == terminal.at_first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_closes_the_shell_and_leaves_the_terminal_as_it_was(
    number: signal.Signals, on_terminal: OnTerminal, daemon: FakeDaemon
) -> None:
    daemon.shell()

    with shell_in(on_terminal, daemon) as (terminal, engine):
        terminal.signal(number)
        assert terminal.wait() == -number
        assert to_the_end(engine) == b""
        assert terminal.modes() == terminal.at_first


def test_a_terminal_that_hangs_up_closes_the_shell(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell()

    with shell_in(on_terminal, daemon) as (terminal, engine):
        terminal.hang_up()
        assert to_the_end(engine) in (b"", b"\x04")
        assert terminal.wait() == -signal.SIGHUP


def test_a_shell_that_is_suspended_from_outside_gives_the_terminal_back_and_takes_it_again(
    on_terminal: OnTerminal, daemon: FakeDaemon
) -> None:
    daemon.shell()

    with shell_in(on_terminal, daemon) as (terminal, engine):
        terminal.signal(signal.SIGTSTP)
        eventually(lambda: terminal.modes() == terminal.at_first)
        terminal.signal(signal.SIGCONT)
        terminal.wait_raw()
        engine.close()
        assert terminal.wait() == 0
        assert terminal.modes() == terminal.at_first


def test_a_shell_that_was_ended_from_outside_says_where_to_look(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=137)

    with shell_in(on_terminal, daemon) as (terminal, engine):
        engine.close()
        terminal.expect("`container-why thesis` may say why")
        assert terminal.wait() == 137


def test_a_second_socket_that_hands_out_nothing_is_said(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell()
    daemon.hand_out = lambda client: client.sendall(b"no not_found no such ticket; ask for another\n")

    with on_terminal("container-run", "thesis") as terminal:
        terminal.expect("no such ticket; ask for another")
        assert terminal.wait() == 125
        assert terminal.modes() == terminal.at_first


def test_more_than_one_descriptor_is_not_taken(run: Run, daemon: FakeDaemon) -> None:
    daemon.shell()

    def two(client: socket.socket) -> None:
        with Path("/dev/null").open("rb") as one:
            socket.send_fds(client, [b"x"], [one.fileno()] * 2)

    daemon.hand_out = two
    assert run("container-exec", "thesis", "--", "true").returncode == 125


def test_a_descriptor_of_somebody_elses_daemon_is_not_taken(daemon: FakeDaemon) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    daemon.shell()
    daemon.socket.parent.chmod(0o755)
    for path in (daemon.socket, daemon.door):
        path.chmod(0o777)
    other = "import os,runpy,sys; os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])"
    # The daemon here runs as root, the command as nobody: trusted. Then the other way round.
    trusted = run_as(daemon, other, "container-exec", "thesis", "-T", "--", "true")
    assert trusted == 0
    with FakeServer(daemon) as server:
        assert server.asked_by_root() == 125


class FakeServer:
    """The second door in the hands of another uid."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def __enter__(self) -> Self:
        self._daemon.door.unlink()
        code = (
            "import os,socket,sys\n"
            "s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1],0o777); os.setuid(65534)\n"
            "s.listen(); print('ready',flush=True)\n"
            "while True: s.accept()[0].recv(100)\n"
        )
        self._process = subprocess.Popen(
            ["python3", "-c", code, str(self._daemon.door)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def asked_by_root(self) -> int:
        done = subprocess.run(
            [str(BIN / "container-exec"), "thesis", "--", "true"],
            env=environment(self._daemon),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert b"not as root" in done.stderr
        return done.returncode


def run_as(daemon: FakeDaemon, code: str, *words: str) -> int:
    """A command as nobody, its engine's end closed at once."""
    process = subprocess.Popen(
        ["python3", "-c", code, str(BIN / words[0]), *words[1:]],
        env=environment(daemon),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    daemon.connection().close()
    return process.wait(20)


# --- without a terminal


@contextmanager
def command(daemon: FakeDaemon, *words: str, stdin: int = subprocess.PIPE) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in pipes."""
    process = subprocess.Popen(
        [str(BIN / words[0]), *words[1:]],
        env=environment(daemon),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_command_reads_stdin_to_its_end_and_keeps_its_outputs_apart(daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=42)

    with command(daemon, "container-exec", "thesis", "--workdir", "/tmp", "--", "sh", "-c", "x") as process:
        engine = daemon.connection()
        assert process.stdin is not None
        process.stdin.write(b"input")
        process.stdin.close()
        process.stdin = None
        assert to_the_end(engine) == b"input"
        both = frame(1, b"out\0put") + frame(2, b"error") + frame(1, b"") + frame(1, b" more")
        for byte in both:
            engine.sendall(bytes([byte]))
        engine.close()
        out, err = process.communicate(timeout=10)

    assert (out, err, process.returncode) == (b"out\0put more", b"error", 42)
    asked = daemon.asked[0].params
    assert (asked["argv"], asked["tty"], asked["workdir"]) == (["sh", "-c", "x"], False, "/tmp")
    assert "rows" not in asked


def test_much_in_both_directions_at_once_stands_still_on_neither_side(daemon: FakeDaemon) -> None:
    daemon.shell()
    size = 4 * 2**20

    with command(daemon, "container-exec", "thesis", "--", "cat") as process:
        engine = daemon.connection()
        engine.sendall(frame(1, b"first"))
        assert process.stdin is not None
        assert process.stdout is not None
        # More than all buffers hold, while nobody reads the other side.
        os.set_blocking(process.stdin.fileno(), False)
        filled = 0
        for _ in range(100):
            try:
                filled += os.write(process.stdin.fileno(), b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.01)
        assert process.stdout.read(5) == b"first"
        os.set_blocking(process.stdin.fileno(), True)
        got = 0
        while got < filled:
            got += len(engine.recv(2**20))
        process.stdin.close()
        process.stdin = None
        assert to_the_end(engine) == b""

        def answer() -> None:
            with engine:
                engine.sendall(frame(1, b"y" * size))

        answering = threading.Thread(target=answer)
        answering.start()
        assert process.stdout.read() == b"y" * size
        answering.join()
        assert process.wait(10) == 0


def test_a_command_that_ends_early_lets_its_input_go(daemon: FakeDaemon) -> None:
    daemon.shell(exit_code=1)

    with command(daemon, "container-exec", "thesis", "--", "false") as process:
        engine = daemon.connection()
        engine.sendall(frame(2, b"bye"))
        engine.close()
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b"bye"


def test_a_reader_who_leaves_ends_it(daemon: FakeDaemon) -> None:
    daemon.shell()

    with command(daemon, "container-exec", "thesis", "--", "yes", stdin=subprocess.DEVNULL) as process:
        engine = daemon.connection()
        assert process.stdout is not None
        process.stdout.close()
        engine.sendall(frame(1, b"y\n"))
        assert process.wait(10) == 141
        assert to_the_end(engine) == b""
        process.stdout = None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_by_closing_its_connection(number: signal.Signals, daemon: FakeDaemon) -> None:
    daemon.shell()

    with command(daemon, "container-exec", "thesis", "--", "sleep", "9") as process:
        engine = daemon.connection()
        engine.sendall(frame(1, b"begun"))
        assert process.stdout is not None
        assert process.stdout.read(5) == b"begun"
        process.send_signal(number)
        assert process.wait(10) == -number
        assert to_the_end(engine) == b""


@pytest.mark.parametrize(
    ("garbage", "said"), [(b"\x09\0\0\0\0\0\0\1x", "stream 9"), (b"HTTP/1.1 200 OK\r\n\r\n", "stream 72")]
)
def test_what_is_no_frame_is_not_shown(garbage: bytes, said: str, daemon: FakeDaemon) -> None:
    daemon.shell()

    with command(daemon, "container-exec", "thesis", "--", "true", stdin=subprocess.DEVNULL) as process:
        daemon.connection().sendall(garbage)
        out, err = process.communicate(timeout=10)

    assert (process.returncode, out) == (125, b"")
    assert said in err.decode()


def test_stdin_that_is_closed_is_at_its_end(daemon: FakeDaemon) -> None:
    daemon.shell()
    process = subprocess.Popen(
        ["bash", "-c", f"exec {BIN}/container-exec thesis -- true <&-"],
        env=environment(daemon),
        stderr=subprocess.PIPE,
    )
    engine = daemon.connection()
    assert to_the_end(engine) == b""
    engine.close()
    assert process.communicate(timeout=10)[1] == b""
    assert process.returncode == 0


def test_an_exit_code_that_nobody_can_tell_is_125_with_a_reason(daemon: FakeDaemon) -> None:
    daemon.shell()
    daemon.answers["exec.result"] = error("not_found", 4)

    with command(daemon, "container-exec", "thesis", "--", "true", stdin=subprocess.DEVNULL) as process:
        daemon.connection().close()
        _, err = process.communicate(timeout=10)

    assert process.returncode == 125
    assert b"it ended with its container" in err
    assert b"container-why thesis" in err


def test_a_result_that_is_late_is_asked_for_again(run: Run, daemon: FakeDaemon) -> None:
    daemon.shell()
    ended = [True, True, False]
    daemon.answers["exec.result"] = lambda _: result({"running": ended.pop(0) if ended else False, "exit_code": 5})
    daemon.hand_out = closed(daemon)

    assert run("container-exec", "thesis", "--", "true").returncode == 5


def test_a_refused_command_is_125_and_says_why(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["exec.start"] = error("wrong_phase", 1, "cannot run it: thesis is stopped", "container-start thesis")

    done = run("container-exec", "thesis", "--", "true")

    assert done.returncode == 125
    assert done.stderr == "cannot run it: thesis is stopped\nhint: container-start thesis\n"


def test_a_command_is_never_begun_twice(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["exec.start"] = Reply(raw=b"")

    assert run("container-exec", "thesis", "--", "true").returncode == 125
    assert daemon.methods() == ["exec.start"]


def test_a_terminal_can_be_had_where_there_is_none(daemon: FakeDaemon) -> None:
    daemon.shell()

    with command(daemon, "container-exec", "-t", "thesis", "--", "sh", stdin=subprocess.DEVNULL) as process:
        engine = daemon.connection()
        # The end of the input is a key there.
        assert engine.recv(10) == b"\x04"
        engine.sendall(b"raw\r\n")
        engine.close()
        out, _ = process.communicate(timeout=10)

    assert out == b"raw\r\n"
    assert daemon.asked[0].params["tty"] is True


def test_a_terminal_can_be_left_out_where_there_is_one(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.shell()

    with on_terminal("container-exec", "-T", "thesis", "--", "ls") as terminal:
        engine = daemon.connection()
        engine.sendall(frame(1, b"file\n"))
        terminal.expect("file\r\n")
        assert not terminal.raw()
        engine.close()
        assert terminal.wait() == 0

    assert daemon.asked[0].params["tty"] is False


def closed(daemon: FakeDaemon) -> Callable[[socket.socket], None]:
    """Hands out a connection that is at its end already."""

    def hand_out(client: socket.socket) -> None:
        daemon.hand_one(client)
        daemon.connection().close()

    return hand_out


def eventually(true: Callable[[], bool]) -> None:
    """Until it is so."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
