"""Shells and commands in one's own container on the installed product: with a terminal, and without one."""

import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.system.house import SETTINGS, House, house
from tests.testbed.server import until
from tests.testbed.terminal import Terminal

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture
def thesis(clean: House) -> House:
    clean.started("alice", "thesis")
    return clean


def stored(home: House) -> int:
    """How many descriptors systemd keeps for the daemon."""
    shown = home.server.exec("systemctl", "show", "--property", "NFileDescriptorStore", "--value", "ds01d.service")
    return int(shown.stdout)


def runs(home: House, words: str) -> bool:
    """Whether this runs in alice's container."""
    return words in home.server.docker("top", home.engine_name("alice", "thesis"), "-o", "pid,args").stdout


def is_over(home: House, words: str) -> bool:
    return not runs(home, words)


@pytest.fixture
def terminal(thesis: House) -> Iterator[Terminal]:
    """Alice's interactive shell, at its prompt."""
    with thesis.server.spawn_pty("container-run", "--keep", "thesis", user="alice", rows=40, columns=100) as opened:
        opened.expect(r"[$#] ")
        yield opened


# ── with a terminal ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shell_has_a_terminal_of_the_same_size(terminal: Terminal) -> None:
    terminal.send("stty size\n")
    terminal.expect(r"40 100\r")


def test_a_shell_hears_that_its_window_changed(terminal: Terminal) -> None:
    terminal.send("while :; do stty size; sleep 0.1; done\n")
    terminal.expect(r"40 100\r")
    terminal.resize(50, 132)
    terminal.expect(r"50 132\r")


def test_ctrl_c_reaches_what_runs_in_the_shell_and_nothing_else(thesis: House, terminal: Terminal) -> None:
    terminal.send("sleep 300\n")
    until("it runs", lambda: runs(thesis, "sleep 300"), 10)
    terminal.expect("sleep 300\r\n")
    terminal.send("\3")
    terminal.expect(r"[$#] ")
    terminal.send("echo still $((40 + 2))\n")
    terminal.expect("still 42")


def test_a_shell_ends_with_its_own_exit_code(terminal: Terminal) -> None:
    terminal.send("exit 7\n")
    assert terminal.wait() == 7


def test_ctrl_p_ctrl_q_detaches_nobody(terminal: Terminal) -> None:
    terminal.send("cat\n")
    terminal.send("\x10\x11ok\n")
    terminal.expect("ok")
    terminal.send("\4")
    terminal.expect(r"[$#] ")
    terminal.send("exit\n")
    terminal.wait()


def test_a_lost_connection_ends_what_ran_in_the_shell(thesis: House) -> None:
    """More than once: whether the client heard of it depended on which of its threads did."""
    for n in range(8):
        with thesis.server.spawn_pty("container-run", "--keep", "thesis", user="alice") as terminal:
            terminal.expect(r"[$#] ")
            terminal.send(f"sleep 424{n}\n")
            until("it runs", partial(runs, thesis, f"sleep 424{n}"), 10)

            terminal.hang_up()

            until("it is gone", partial(is_over, thesis, f"sleep 424{n}"), 15)
    until("systemd keeps nothing of it", lambda: stored(thesis) == 0, 10)
    assert thesis.of("alice", "thesis")["status"] == "running"


def test_the_container_of_a_shell_that_was_left_stops_and_holds_its_gpu(clean: House) -> None:
    clean.create("alice", "thesis")
    with clean.server.spawn_pty("container-run", "thesis", user="alice") as terminal:
        terminal.expect(r"[$#] ")
        assert clean.of("alice", "thesis")["status"] == "running"
        terminal.send("exit\n")
        terminal.wait()

    held = clean.wait_for("alice", "thesis", "stopped")
    assert held["slots"] == ["4:0"]


def test_a_stop_ends_the_shells_and_says_so(thesis: House, terminal: Terminal) -> None:
    thesis.run("alice", "container-stop", "thesis")
    terminal.wait()
    assert thesis.of("alice", "thesis")["status"] == "stopped"


def test_a_client_that_is_stopped_does_not_hold_the_container_up(thesis: House) -> None:
    client = thesis.server.popen("container-exec", "--no-tty", "thesis", "--", "yes", user="alice")
    try:
        assert client.stdout is not None
        client.stdout.read(10)  # and then nothing more: the pipe fills, the client blocks, the engine too
        thesis.run("alice", "container-stop", "thesis", timeout=30)
        thesis.wait_for("alice", "thesis", "stopped")
    finally:
        thesis.server.signal(client, signal.SIGKILL)
        client.communicate()


# ── without ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_reads_stdin_and_keeps_its_two_outputs_apart(thesis: House) -> None:
    script = "read line; echo out $line; echo err >&2; exit 5"
    done = thesis.run("alice", "container-exec", "thesis", "--", "sh", "-c", script, input="in\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out in\n", "err\n", 5)


def test_a_megabyte_goes_through_a_command_unchanged(thesis: House) -> None:
    text = "".join(f"{n:07}\n" for n in range(131072))
    done = thesis.run("alice", "container-exec", "thesis", "--", "cat", input=text)
    assert done.stdout == text


def test_the_end_of_stdin_ends_a_command_that_reads(thesis: House) -> None:
    assert thesis.run("alice", "container-exec", "thesis", "--", "wc", "-c", input="12345").stdout.strip() == "5"


def test_a_command_that_is_not_there_ends_as_the_engine_has_it(thesis: House) -> None:
    argv = ("thesis", "--", "no-such-command")
    done = thesis.run("alice", "container-exec", *argv, check=False)
    assert done.returncode in {126, 127}
    assert "no-such-command" in done.stdout + done.stderr


@pytest.fixture
def rarely_listed(thesis: House) -> Iterator[House]:
    """The same, where no listing tells anything while a test lasts."""
    for settings in (SETTINGS.replace("listing: 1s", "listing: 1h"), SETTINGS):
        thesis.server.write("/etc/ds01/ds01d.yaml", settings)
        thesis.server.exec("systemctl", "restart", "ds01d.service")
        if settings != SETTINGS:
            yield thesis


def test_a_container_that_ends_by_itself_beside_an_unread_shell_is_noticed_at_once(rarely_listed: House) -> None:
    thesis = rarely_listed
    unread = thesis.server.popen("container-exec", "thesis", "--", "yes", user="alice")
    try:
        thesis.server.stuck("yes")
        thesis.server.exec("kill", "-KILL", thesis.server.init_of(thesis.engine_name("alice", "thesis")))
        thesis.wait_for("alice", "thesis", "stopped", 10)
    finally:
        thesis.server.signal(unread, signal.SIGKILL)
        unread.communicate()


def test_our_own_failures_end_with_125(clean: House) -> None:
    clean.create("alice", "thesis")
    assert "container-start thesis" in clean.refused("alice", "container-exec", "thesis", "--", "true", code=125)


def test_a_command_runs_as_the_owner_whoever_asks(thesis: House) -> None:
    done = thesis.server.exec("container-exec", "--user", "alice", "thesis", "--", "id", "-u")
    assert done.stdout == "1001\n"


def test_nobody_gets_a_shell_in_somebody_elses_container(thesis: House) -> None:
    assert "cannot find" in thesis.refused("bob", "container-exec", "thesis", "--", "true", code=125)
    with thesis.server.spawn_pty("container-run", "thesis", user="bob") as terminal:
        terminal.expect("cannot find a container called thesis")
        assert terminal.wait() == 4


FETCH = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect('/run/ds01/fd.sock')
s.sendall(sys.argv[1].encode() + b'\\n')
message, descriptors, _, _ = socket.recv_fds(s, 4096, 4)
print(len(descriptors), message.decode(), end='', flush=True)
for fd in descriptors:
    shell = socket.socket(fileno=fd)
    shell.shutdown(socket.SHUT_WR)
    while (read := shell.recv(4096)):
        os.write(1, read[8:])
"""


def ticket(home: House, *argv: str) -> str:
    started = home.rpc("alice", "exec.start", name="thesis", argv=argv, tty=False)
    return str(started["result"]["ticket"])


def test_a_ticket_is_good_for_its_owner_alone_and_once(thesis: House) -> None:
    asked = ticket(thesis, "cat")

    assert thesis.run("bob", "python3", "-c", FETCH, asked).stdout.startswith("0 no not_found")
    assert thesis.run("alice", "python3", "-c", FETCH, asked).stdout.startswith("1 ok ")
    assert thesis.run("alice", "python3", "-c", FETCH, asked).stdout.startswith("0 no not_found")


def test_a_command_that_is_over_before_it_is_fetched_still_tells_what_it_said(thesis: House) -> None:
    asked = ticket(thesis, "echo", "quick")
    time.sleep(1)

    said = thesis.run("alice", "python3", "-c", FETCH, asked).stdout

    assert said.startswith("1 ok ")
    assert said.endswith("quick\n")
    until("systemd keeps nothing of it", lambda: stored(thesis) == 0, 5)
