"""Fetches a shell's connection from the daemon's second socket: a descriptor that leads straight to the engine.

What comes through it is typed at by a person, so whoever hands it out has to be root.
"""

import os
import socket
import struct

from ds01client.wire import Unreachable, connect, environment, socket_path

#: The daemon hands it out within seconds or not at all.
_PATIENCE_S = 15.0
_UCRED = struct.Struct("3i")
_TEXT_MAX = 4096


class Refused(Exception):
    """The daemon gave no descriptor: the message is for people."""


def fetch(ticket: str) -> socket.socket:
    """The connection that this ticket stands for; good once, for a few seconds."""
    with socket.socket(fileno=connect(f"{socket_path().rpartition('/')[0] or '.'}/fd.sock").detach()) as door:
        door.settimeout(_PATIENCE_S)
        _check(door)
        try:
            door.sendall(f"{ticket}\n".encode())
            # Room for more than one, so that none is lost unseen; the kernel closes those that do not fit.
            text, descriptors, flags, _ = socket.recv_fds(door, _TEXT_MAX, 8)
        except TimeoutError:
            raise Refused("ds01d does not hand out the shell") from None
        except OSError as e:
            raise Unreachable(f"ds01d broke off: {(e.strerror or str(e)).lower()}") from None
    if flags & socket.MSG_CTRUNC or len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Refused(_reason(text.decode(errors="replace")))
    os.set_inheritable(descriptors[0], False)  # noqa: FBT003  # its only form
    return socket.socket(fileno=descriptors[0])


def _reason(line: str) -> str:
    """The words of `no KIND WORDS`."""
    match line.split(maxsplit=2):
        case ["no", _, words]:
            return words.strip()
        case _:
            return "cannot open it: ds01d did not hand out its connection; try again"


def _check(door: socket.socket) -> None:
    """Only root's descriptor is trusted; with DS01_SOCKET, somebody's own daemon is too."""
    _, uid, _ = _UCRED.unpack(door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid != 0 and not (environment("DS01_SOCKET") and uid == os.getuid()):
        raise Unreachable(
            f"what hands out shells there runs as uid {uid}, not as root: do not use it, tell an operator"
        )
