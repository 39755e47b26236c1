"""`exec.*`, and the second door, at which shells are handed out."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from ds01d.api.handlers.shells import LOGIN_SHELL
from ds01d.api.shells import ShellDoor
from ds01d.api.throttle import Limits, Throttle
from tests.api.caller import Client, connect
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, CAROL, NOBODY
from tests.api.mind import NOON

pytestmark = pytest.mark.root


@pytest.fixture
async def alice(house: House) -> Client:
    client = await house.client(ALICE)
    await client.result("container.create", name="vision", image="python:3.12")
    await client.result("container.start", name="vision")
    return client


@pytest.fixture
async def fd_sock(house: House) -> AsyncIterator[str]:
    path = str(house.folder / "fd.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)  # noqa: PTH101, S103  # as the real one: everybody may connect
    listener.listen(128)
    limits = Limits(connections_per_uid=4)
    throttle = Throttle(limits, lambda: 0.0)
    door = ShellDoor(sessions=house.shells, identify=house.identify, throttle=throttle, show_s=0.5)
    serving = asyncio.create_task(door.serve(listener))
    yield path
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    listener.close()
    for fd in house.shells.lent:
        os.close(fd)


async def fetch(path: str, ticket: bytes, uid: int | None = None) -> tuple[str, list[int]]:
    """Show a ticket; gives the door's line and the descriptors that came with it."""
    with connect(path, uid) as sock:
        sock.sendall(ticket)
        return await asyncio.to_thread(_receive, sock)


def _receive(sock: socket.socket) -> tuple[str, list[int]]:
    sock.settimeout(10)
    line, fds, _flags, _ = socket.recv_fds(sock, 1024, 4)
    return line.decode(), fds


async def test_a_shell_is_asked_for_and_fetched(house: House, alice: Client, fd_sock: str) -> None:
    shell = await alice.result("exec.start", name="vision", rows=50, cols=132, env={"TERM": "xterm", "PATH": "/evil"})

    line, fds = await fetch(fd_sock, f"{shell['ticket']}\n".encode(), ALICE)

    assert line == f"ok {shell['exec']}\n"
    assert len(fds) == 1
    os.write(fds[0], b"hello")
    assert os.read(house.shells.lent[0], 5) == b"hello"
    os.close(fds[0])
    started = house.shells.started[0]
    assert started["argv"] == LOGIN_SHELL
    assert (started["user"], started["env"], started["workdir"]) == ("2001:2001", {"TERM": "xterm"}, "/workspace")
    assert house.shells.sizes[shell["exec"]] == (50, 132)


async def test_the_login_shell_starts_where_there_is_no_bash() -> None:
    for path in (os.environ["PATH"], "/nonexistent"):
        run = await asyncio.to_thread(
            subprocess.run, LOGIN_SHELL, input=b"echo it works\n", capture_output=True, env={"PATH": path}, check=True
        )
        assert run.stdout == b"it works\n"


async def test_a_command_runs_without_a_terminal(house: House, alice: Client) -> None:
    shell = await alice.result("exec.start", name="vision", argv=["nvidia-smi", "-L"], tty=False)
    assert house.shells.started[0]["argv"] == ("nvidia-smi", "-L")
    assert house.shells.sizes[shell["exec"]] is None
    assert (await alice.error("exec.start", name="vision", argv=[]))["data"]["kind"] == "invalid"


async def test_only_what_is_harmless_of_the_environment_goes_along(house: House, alice: Client) -> None:
    env = {
        "TERM": "xterm-256color",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C",
        "COLORTERM": "truecolor",
        "LD_PRELOAD": "/x.so",
        "LC_EVIL": "a\nb",
        "LANGUAGE": "de",
        "LC_TIME": "x" * 300,
    }
    await alice.result("exec.start", name="vision", env=env)
    assert house.shells.started[0]["env"] == {
        "TERM": "xterm-256color",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C",
        "COLORTERM": "truecolor",
    }


async def test_a_shell_that_somebody_lives_in_is_told_from_a_command(house: House, alice: Client) -> None:
    await alice.result("exec.start", name="vision", lives_in=True)
    await alice.result("exec.start", name="vision", argv=["true"])
    assert [s["lives_in"] for s in house.shells.started] == [True, False]


async def test_a_shell_needs_a_container_that_runs(alice: Client) -> None:
    await alice.result("container.stop", name="vision", grace_s=0)
    error = await alice.error("exec.start", name="vision")
    assert (error["data"]["kind"], error["data"]["hint"]) == ("wrong_phase", "start it with `container-run vision`")


async def test_whoever_wants_a_shell_while_the_engine_is_silent_hears_of_the_engine(
    house: House, alice: Client
) -> None:
    house.mind.state.sight = replace(house.mind.state.sight, silent_since=NOON - 60, silent_why="connection refused")
    error = await alice.error("exec.start", name="vision", argv=["true"])
    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("engine_down", 75)
    assert error["message"] == ("cannot run a command in vision: the engine does not answer: connection refused")
    assert house.shells.started == []


async def test_a_start_that_waits_for_a_silent_engine_does_not_call_for_a_moments_patience(
    house: House, alice: Client
) -> None:
    await alice.result("container.stop", name="vision", grace_s=0)
    house.mind.asleep = True
    house.mind.state.sight = replace(house.mind.state.sight, silent_since=NOON, silent_why="connection refused")
    await alice.result("container.start", name="vision", wait_s=0)
    assert (await alice.error("exec.start", name="vision"))["data"]["kind"] == "engine_down"


async def test_in_a_paused_container_nothing_is_run_and_it_is_said_who_can_resume_it(
    house: House, alice: Client
) -> None:
    house.shells.paused = True
    error = await alice.error("exec.start", name="vision", argv=["ls"])
    assert (error["data"]["kind"], error["message"]) == ("engine", "cannot run a command in vision: it is paused")
    assert error["data"]["hint"].startswith("`container-stop vision` stops it; an operator resumes it with `docker unp")


async def test_an_operator_in_somebodys_container_is_its_owner_there(house: House, alice: Client) -> None:
    shell = await (await house.client(CAROL)).result("exec.start", name="vision", user="alice")
    assert house.shells.started[0]["user"] == "2001:2001"
    assert house.shells.tickets[shell["ticket"]][1] == CAROL
    assert (await alice.result("exec.result", exec=shell["exec"])) == {"running": True, "exit_code": None}


async def test_sizes_and_exit_codes_are_for_who_may_use_the_container(house: House, alice: Client) -> None:
    shell = await alice.result("exec.start", name="vision")
    bob = await house.client(BOB)
    for method, more in (("exec.resize", {"rows": 1, "cols": 1}), ("exec.result", {})):
        assert (await bob.error(method, exec=shell["exec"], **more))["data"]["kind"] == "not_found"
    await alice.result("exec.resize", exec=shell["exec"], rows=24, cols=100)
    assert house.shells.sizes[shell["exec"]] == (24, 100)
    house.shells.exit_code = 127
    assert (await alice.result("exec.result", exec=shell["exec"]))["exit_code"] == 127


async def test_a_ticket_is_good_once_and_for_its_owner_alone(alice: Client, fd_sock: str) -> None:
    ticket = f"{(await alice.result('exec.start', name='vision'))['ticket']}\n".encode()
    assert await fetch(fd_sock, ticket, BOB) == ("no not_found no such ticket\n", [])
    _, fds = await fetch(fd_sock, ticket, ALICE)
    os.close(fds[0])
    assert await fetch(fd_sock, ticket, ALICE) == ("no not_found no such ticket\n", [])


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        (b"no-such-ticket\n", "not_found"),
        (b"\n", "not_found"),
        (b"\xff\xfe\n", "invalid"),
        (b"x" * 4096, "invalid"),
        (b"a\nb\n", "not_found"),
    ],
)
async def test_what_is_no_ticket_gets_a_word(alice: Client, fd_sock: str, shown: bytes, kind: str) -> None:
    await alice.result("exec.start", name="vision")
    line, fds = await fetch(fd_sock, shown, ALICE)
    assert (line.split()[:2], fds) == (["no", kind], [])


async def test_a_uid_without_an_account_gets_no_shell(alice: Client, fd_sock: str) -> None:
    await alice.result("exec.start", name="vision")
    assert (await fetch(fd_sock, b"x\n", NOBODY))[0].startswith("no denied cannot serve uid 2999")


async def test_who_shows_nothing_in_time_is_sent_away(fd_sock: str) -> None:
    with connect(fd_sock, ALICE) as silent:
        line, _ = await asyncio.to_thread(_receive, silent)
    assert line.startswith("no invalid cannot wait any longer for a ticket")


async def test_silent_callers_keep_nobody_else_out(alice: Client, fd_sock: str) -> None:
    ticket = f"{(await alice.result('exec.start', name='vision'))['ticket']}\n".encode()
    silent = [connect(fd_sock, BOB) for _ in range(6)]
    line, fds = await fetch(fd_sock, ticket, ALICE)
    assert line.startswith("ok ")
    os.close(fds[0])
    said, _ = await asyncio.to_thread(_receive, silent[-1])
    assert said.startswith("no too_many")
    for sock in silent:
        sock.close()


async def test_who_is_gone_before_the_descriptor_is_sent_costs_nothing(
    house: House, alice: Client, fd_sock: str
) -> None:
    ticket = (await alice.result("exec.start", name="vision"))["ticket"]
    house.shells.tickets[ticket] = (house.shells.tickets[ticket][0], 0)  # type: ignore[assignment]  # root's
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({fd_sock!r}); s.send(b'{ticket}\\n')"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
    line, _ = await fetch(fd_sock, b"next\n", ALICE)
    assert line == "no not_found no such ticket\n"
