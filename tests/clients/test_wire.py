"""The client's own JSON and HTTP: what it writes others can read, and what it reads may be anything."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01client import wire
from ds01d import __version__
from tests.clients.conftest import BIN, Run
from tests.clients.daemon import FakeDaemon, Reply, environment


def test_the_commands_and_the_daemon_are_of_one_version() -> None:
    assert __version__ == wire.VERSION


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert json.loads(wire.quote(text)) == text


@given(st.characters(max_codepoint=0x9F))
def test_no_control_character_stands_in_a_request_as_it_is(character: str) -> None:
    assert character.isprintable() or character not in wire.quote(f"a{character}") or ord(character) >= 0x80


@pytest.mark.parametrize("text", ["\ud800", "a\udcff", "\udfff\ud800"])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(wire.NotText):
        wire.quote(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_value_comes_back_as_it_was(value: object) -> None:
    assert json.loads(wire.encode(value)) == value


def test_what_json_does_not_know_is_a_bug() -> None:
    with pytest.raises(TypeError):
        wire.encode({1, 2})


def test_an_argument_that_is_not_utf_8_is_a_usage_error_that_shows_it(run: Run, daemon: FakeDaemon) -> None:
    done = run("container-start", b"caf\xe9".decode(errors="surrogateescape"))

    assert done.returncode == 2
    assert "caf\ufffd is not UTF-8" in done.stderr
    assert daemon.asked == []


@pytest.mark.parametrize(
    "chunks", [[b"5\r\nhello\r\n0\r\n\r\n"], [b"2\r\nhe\r\n3;x=y\r\nl", b"lo\r\n0\r\nTrailer: 1\r\n\r\n"]]
)
def test_a_body_in_chunks_is_put_together(chunks: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(chunks))
        assert b"".join(wire.chunks(wire.Reader(ours, 5))) == b"hello"


@pytest.mark.parametrize("size", [b"-1", b"0x5", b"5_0", b"", b"ffffffffffffffffff", b"+5"])
def test_a_size_that_is_no_number_is_not_believed(size: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(size + b"\r\nhello\r\n")
        with pytest.raises(wire.Unreachable, match=wire.STRANGE):
            b"".join(wire.chunks(wire.Reader(ours, 5)))


HEAD = b"HTTP/1.1 200 OK\r\nDs01-Exit: 0\r\n"
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 100\r\n\r\nabc",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\nabc",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another HTTP server": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "a huge length": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length that is no number": HEAD + b"Content-Length: many\r\n\r\n",
    "an exit code that is none": b"HTTP/1.1 200 OK\r\nDs01-Exit: 300\r\nContent-Length: 0\r\n\r\n",
    "a head without an end": HEAD + b"X: " + b"x" * 300_000,
    "too many headers": HEAD + b"".join(b"H%d: 1\r\n" % n for n in range(500)) + b"\r\n",
    "bytes": bytes(range(256)) * 50,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_answer_that_is_none_ends_with_69_and_a_sentence(what: str, run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.stop"] = Reply(raw=HOSTILE[what])

    done = run("container-stop", "thesis")

    assert done.returncode == 69
    assert done.stdout == ""
    assert "ds01d" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_daemon_it_is_said_where_it_was_looked_for(run: Run, daemon: FakeDaemon) -> None:
    done = run("container-list", DS01_SOCKET="/nowhere/ds01d.sock")

    assert done.returncode == 69
    assert "cannot reach ds01d at /nowhere/ds01d.sock" in done.stderr
    assert "hint: " in done.stderr
    assert daemon.asked == []


def test_without_a_daemon_a_script_gets_json(run: Run) -> None:
    done = run("container-list", "--json", DS01_SOCKET="/nowhere/ds01d.sock")

    assert done.returncode == 69
    error = json.loads(done.stdout)["error"]
    assert error.keys() == {"code", "kind", "message", "hint", "exit_code"}
    assert (error["kind"], error["code"], error["exit_code"]) == ("unreachable", -32000, 69)
    assert done.stderr == ""


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["ds01-run --help", "container-list", "container-list --json", "ds01ctl version"])
def test_what_cannot_be_written_is_one_line_and_exit_code_1(command: str, where: str, daemon: FakeDaemon) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BIN}/{command} {where}"],
        env=environment(daemon),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    why = "no space left on device" if where == ">/dev/full" else "bad file descriptor"
    assert done.stderr == f"{command.partition(' ')[0]}: cannot write its output: {why}\n"


def test_a_read_that_was_broken_off_is_asked_again(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = once_broken(Reply("NAME\n"))

    done = run("container-list")

    assert (done.returncode, done.stdout) == (0, "NAME\n")


def test_a_create_that_was_broken_off_is_the_same_create_again(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.create"] = once_broken(Reply("made\n"))

    done = run("container-create", "thesis", "bb")

    assert (done.returncode, done.stdout) == (0, "made\n")
    first, second = daemon.asked
    assert first.params["request_id"] == second.params["request_id"]


def test_a_stop_that_was_broken_off_is_not_asked_again(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.stop"] = once_broken(Reply())

    done = run("container-stop", "thesis")

    assert done.returncode == 69
    assert "may have been done" in done.stderr
    assert daemon.methods() == ["container.stop"]


def test_a_read_waits_for_a_daemon_that_restarts(run: Run, daemon: FakeDaemon) -> None:
    def restart() -> None:
        daemon.stop()
        daemon.start()

    back = threading.Thread(target=restart)

    def gone(_params: dict[str, object]) -> Reply:
        daemon.answers["container.list"] = Reply("NAME\n")
        back.start()
        return Reply(raw=b"")

    daemon.answers["container.list"] = gone
    done = run("container-list")
    back.join()

    assert (done.returncode, done.stdout) == (0, "NAME\n")


def test_a_reader_who_has_seen_enough_is_no_trouble(daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = Reply("line\n" * 100_000)

    done = subprocess.run(
        ["bash", "-c", f'{BIN}/container-list | head -n 1; echo "${{PIPESTATUS[0]}}"'],
        env=environment(daemon),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("line\n141\n", "")


@pytest.mark.parametrize(("version", "said"), [("1.0.0", True), ("0.9.3", False), ("0.1.0", False)])
def test_a_daemon_of_another_age_is_remarked_upon(*, version: str, said: bool, run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = Reply("NAME\n", version=version)

    done = run("container-list")

    assert ("may not understand each other" in done.stderr) is said


def test_a_message_beside_the_answer_goes_to_stderr(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = Reply("NAME\n", message="100 % sure: café\nand more")

    done = run("container-list")

    assert (done.stdout, done.stderr) == ("NAME\n", "100 % sure: café\nand more\n")


def once_broken(then: Reply) -> Callable[[dict[str, object]], Reply]:
    """An answer that breaks off the first time."""
    tried: list[bool] = []

    def answer(_params: dict[str, object]) -> Reply:
        tried.append(True)
        return then if len(tried) > 1 else Reply(raw=b"HTTP/1.1 200 OK\r\n")

    return answer
