"""Who is calling: the kernel's word, and what is no proof."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.api import peer as peer_module
from ds01d.api.peer import Peer, capture, identify
from ds01d.model.errors import AccountsSilent, Denied
from tests.api.caller import connect
from tests.api.conftest import House
from tests.api.fakes import ADMINS, ALICE, BOB, CAROL, NOBODY, Directory

pytestmark = pytest.mark.root


def on_host(_pid: int) -> bool:
    return False


class Door:
    """A listening socket, and everything that came of it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        Path(self.path).chmod(0o666)
        self.listener.listen()
        self.sockets = [self.listener]
        self.peers: list[Peer] = []

    def accept(self) -> Peer:
        accepted, _ = self.listener.accept()
        self.sockets.append(accepted)
        self.peers.append(capture(accepted))
        return self.peers[-1]

    def peer(self, uid: int | None = None, *groups: int) -> Peer:
        """The peer of a connection that this user made."""
        self.sockets.append(connect(self.path, uid, groups))
        return self.accept()

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory(prefix="ds01-peer-") as folder:
        Path(folder).chmod(0o755)
        door = Door(Path(folder))
        yield door
        door.close()


async def test_the_kernel_tells_uid_groups_and_process(door: Door) -> None:
    peer = door.peer(ALICE, 5, 7)
    assert (peer.uid, peer.gid, peer.gids, peer.pid) == (ALICE, ALICE, (5, 7), os.getpid())
    assert peer.pidfd is not None


async def test_an_ordinary_user_is_himself(door: Door) -> None:
    peer = door.peer(ALICE)
    actor = await identify(peer, Directory(), on_host)
    assert (actor.name, actor.uid, actor.operator) == ("alice", ALICE, False)


async def test_root_of_this_machine_is_an_operator(door: Door) -> None:
    peer = door.peer()
    actor = await identify(peer, Directory(), on_host)
    assert (actor.name, actor.operator) == ("root", True)


@pytest.mark.parametrize("groups", [(ADMINS,), (1, 2, ADMINS)])
async def test_the_kernels_group_makes_an_operator(door: Door, groups: tuple[int, ...]) -> None:
    peer = door.peer(BOB, *groups)
    assert (await identify(peer, Directory(), on_host)).operator


async def test_membership_now_makes_an_operator_of_who_logged_in_before(door: Door) -> None:
    peer = door.peer(CAROL)
    assert (await identify(peer, Directory(), on_host)).operator


async def test_more_groups_than_python_reads_leave_it_to_the_directory(door: Door) -> None:
    many = range(10_000, 10_400)
    peer = door.peer(CAROL, *many)
    assert peer.gids == ()
    assert (await identify(peer, Directory(), on_host)).operator


@pytest.mark.parametrize("inside", [True, None])
async def test_root_in_a_container_or_nobody_knows_where_is_nobody(door: Door, inside: bool | None) -> None:
    peer = door.peer()
    with pytest.raises(Denied, match="cannot take you for root"):
        await identify(peer, Directory(), lambda _pid: inside)


@pytest.mark.parametrize("inside", [True, None])
async def test_an_operator_in_a_container_is_an_ordinary_user(door: Door, inside: bool | None) -> None:
    peer = door.peer(CAROL)
    actor = await identify(peer, Directory(), lambda _pid: inside)
    assert (actor.name, actor.operator) == ("carol", False)


async def test_who_is_gone_after_everything_was_read_proves_nothing(door: Door) -> None:
    script = f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect({door.path!r}); sys.stdin.read()"
    caller = _start(sys.executable, "-c", script)
    peer = await asyncio.to_thread(door.accept)
    assert peer.pid == caller.pid

    def dies_while_it_is_looked_at(_pid: int) -> bool:
        caller.communicate()
        return False

    with pytest.raises(Denied):
        await identify(peer, Directory(), dies_while_it_is_looked_at)


async def test_who_was_gone_before_the_accept_proves_nothing(door: Door) -> None:
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({door.path!r})"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], check=True)
    with pytest.raises(Denied):
        await identify(door.accept(), Directory(), on_host)


async def test_root_of_another_pid_namespace_is_nobody(door: Door) -> None:
    script = f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect({door.path!r}); sys.stdin.read()"
    caller = _start("unshare", "--pid", "--fork", sys.executable, "-c", script)
    peer = await asyncio.to_thread(door.accept)
    try:
        with pytest.raises(Denied):
            await identify(peer, Directory(), on_host)
    finally:
        caller.communicate()


async def test_a_uid_without_an_account_is_refused(door: Door) -> None:
    peer = door.peer(NOBODY)
    with pytest.raises(Denied, match="cannot serve uid 2999: it has no account here"):
        await identify(peer, Directory(), on_host)


async def test_a_silent_directory_is_no_missing_account_and_root_needs_none(door: Door) -> None:
    directory = Directory()
    directory.silent = True
    peer = door.peer(ALICE)
    with pytest.raises(AccountsSilent):
        await identify(peer, directory, on_host)
    root = door.peer()
    assert (await identify(root, directory, on_host)).operator


async def test_refusals_reach_the_caller_with_words(house: House) -> None:
    reply = await (await house.client(NOBODY)).post({"jsonrpc": "2.0", "id": 1, "method": "system.version"})
    assert (reply.status, reply.headers["ds01-exit"]) == (403, "3")
    assert reply.json["error"]["data"]["kind"] == "denied"
    assert (await (await house.client(NOBODY)).send("GET", "/events")).status == 403


async def test_a_directory_that_answers_again_is_asked_again(house: House) -> None:
    client = await house.client(ALICE)
    house.directory.silent = True
    silent = await client.post({"jsonrpc": "2.0", "id": 1, "method": "system.version"})
    assert (silent.status, silent.headers["ds01-exit"]) == (503, "75")

    house.directory.silent = False
    assert (await client.result("system.version"))["api_level"] == 1


async def test_identity_is_found_out_once_for_a_connection(house: House) -> None:
    client = await house.client(CAROL)
    await client.result("container.list", all=True)
    house.directory.groups.clear()
    await client.result("container.list", all=True)
    assert (await (await house.client(CAROL)).error("container.list", all=True))["data"]["kind"] == "denied"


async def test_descriptors_of_callers_are_given_back(house: House) -> None:
    before = _descriptors()
    for uid in (ALICE, NOBODY, None):
        client = await house.client(uid)
        await client.post({"jsonrpc": "2.0", "id": 1, "method": "system.version"})
        await client.close()
    await house.until(lambda: _descriptors() <= before)


def _start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all


def test_where_the_kernel_gives_no_pidfd_a_caller_may_be_called_anything(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "SO_PEERPIDFD", 9999)  # as before Linux 6.5
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"a) \xff")
    try:
        assert door.peer().pidfd is not None
    finally:
        comm.write_bytes(before)
