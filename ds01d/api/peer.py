"""Who is calling: the kernel's word about a connection, and the actor that it proves; never what a caller says.

Two things are not proof: uid 0, because root in a container has it too, and a pid, because it may be used again. So
root and operators are believed only with a pidfd that is alive after everything about its process was read.
"""

import errno
import os
import select
import socket
import struct
import time
from pathlib import Path

from ds01d.api.ports import Accounts, ContainerTest
from ds01d.model.account import Account, Missing
from ds01d.model.actor import Actor
from ds01d.model.errors import AccountsSilent, Denied
from ds01d.model.ids import Uid

OPERATORS = "ds01-admin"
#: From Linux's asm-generic/socket.h; Python's socket module does not name them.
SO_PEERGROUPS = 59
SO_PEERPIDFD = 77
#: The largest buffer that Python's getsockopt takes: 256 groups.
_GROUPS_BYTES = 1024
_NO_LOGIN_UID = 2**32 - 1


class Peer:
    """What the kernel says of the other end of one connection, read when it was accepted. Owns a pidfd until closed."""

    __slots__ = ("gid", "gids", "pid", "pidfd", "uid")

    def __init__(self, *, pid: int, uid: int, gid: int, gids: tuple[int, ...], pidfd: int | None) -> None:
        self.pid = pid
        self.uid = Uid(uid)
        self.gid = gid
        #: Supplementary groups; empty where there are more than 256, NSS then decides alone.
        self.gids = gids
        #: None: the process is gone, or nothing shows that its pid still means it.
        self.pidfd = pidfd

    def close(self) -> None:
        """Give the pidfd back."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def take_pidfd(self) -> int | None:
        """The pidfd, which the caller closes from here on."""
        pidfd, self.pidfd = self.pidfd, None
        return pidfd


def capture(sock: socket.socket) -> Peer:
    """Read everything the kernel kept about a connection's other end."""
    accepted = time.clock_gettime(time.CLOCK_BOOTTIME)
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid=pid, uid=uid, gid=gid, gids=_groups(sock), pidfd=_pidfd(sock, pid, accepted))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as e:
        if e.errno != errno.ERANGE:
            raise
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def _pidfd(sock: socket.socket, pid: int, accepted: float) -> int | None:
    try:
        return int(sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
    except OSError as e:
        if e.errno != errno.ENOPROTOOPT:
            return None
    try:
        # Linux before 6.5: a process that started after the accept is not the one that connected.
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if _started_before(pid, accepted):
        return pidfd
    os.close(pidfd)
    return None


def _started_before(pid: int, moment: float) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    ticks = int(stat.rpartition(")")[2].split()[19])
    return ticks <= int(moment * os.sysconf("SC_CLK_TCK"))


async def identify(peer: Peer, accounts: Accounts, in_container: ContainerTest) -> Actor:
    """The actor behind a connection; refuses a uid without an account, and a root that is not the host's."""
    account = await _account(peer.uid, accounts)
    names = await accounts.groups_of(account)
    by_group = await _operator_by_group(peer, names, accounts)
    login_uid = _login_uid(peer.pid)
    # The proof comes last: what was read of the process before is true only if it is alive now.
    proved = (peer.uid == 0 or by_group) and _of_host(peer, in_container)
    if peer.uid == 0 and not proved:
        raise Denied(
            "cannot take you for root of this machine: the calling process is in a container, or is gone already",
            hint="call from the host, from a process that waits for the answer",
        )
    return Actor(
        uid=peer.uid,
        gid=peer.gid,
        name=account.name,
        groups=names if isinstance(names, tuple) else (),
        operator=proved,
        pid=peer.pid,
        login_uid=login_uid,
    )


async def _account(uid: Uid, accounts: Accounts) -> Account:
    if uid == 0:
        return Account(uid=uid, gid=0, name="root", home="/root")
    match await accounts.by_uid(uid):
        case Account() as account:
            return account
        case Missing.NO_SUCH:
            raise Denied(f"cannot serve uid {uid}: it has no account here", hint="call as a user of this machine")
        case Missing.SILENT:
            raise AccountsSilent(
                f"cannot look up the account of uid {uid}: the directory of users does not answer",
                hint="try again in a moment",
            )


async def _operator_by_group(peer: Peer, names: tuple[str, ...] | Missing, accounts: Accounts) -> bool:
    if isinstance(names, tuple) and OPERATORS in names:
        return True
    gid = await accounts.group_id(OPERATORS)
    return not isinstance(gid, Missing) and (gid == peer.gid or gid in peer.gids)


def _of_host(peer: Peer, in_container: ContainerTest) -> bool:
    if peer.pidfd is None or peer.pid <= 0:
        return False
    try:
        here, there = Path("/proc/self/ns/pid").stat(), Path(f"/proc/{peer.pid}/ns/pid").stat()
    except OSError:
        return False
    same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    return same and in_container(peer.pid) is False and _alive(peer.pidfd)


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _login_uid(pid: int) -> int | None:
    try:
        value = int(Path(f"/proc/{pid}/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if value == _NO_LOGIN_UID else value
