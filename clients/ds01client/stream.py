"""Joins somebody's terminal or pipes with a shell's connection until the shell ends. Knows no names and no daemon.

Nothing here waits on one side while the other has something: a command that answers before it has read all its input
must not stand still, nor must one whose reader is slow. The connection is not set to non-blocking, because that would
hold for the daemon's duplicate of it too.
"""

import os
import select
import socket
import stat
import struct
from contextlib import suppress

_PIECE = 65536
#: What a pipe takes without blocking once it says that it is writable: PIPE_BUF.
_SAFE = 4096
_FRAME = struct.Struct(">BxxxL")
_END_OF_FILE = b"\x04"


class Garbled(Exception):
    """What comes from the engine is not what an engine sends."""


class Frames:
    """Takes the engine's frames apart: stdout and stderr share one connection where there is no terminal."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._to = 1

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(descriptor, bytes) for each piece in it; a frame need not be complete."""
        found = []
        while data:
            if not self._left:
                missing = _FRAME.size - len(self._head)
                self._head, data = self._head + data[:missing], data[missing:]
                if len(self._head) < _FRAME.size:
                    break
                stream, self._left = _FRAME.unpack(self._head)
                if stream > 2:  # noqa: PLR2004  # 0 and 1 are stdout, 2 is stderr
                    raise Garbled(f"the engine sent a frame for stream {stream}")
                self._head, self._to = b"", max(stream, 1)
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            if piece:
                found.append((self._to, piece))
        return found


class Joint:
    """Our stdin, stdout and stderr on one side, the connection on the other."""

    def __init__(self, connection: socket.socket, *, tty: bool) -> None:
        self._connection = connection
        self._frames = None if tty else Frames()
        self._to_shell = bytearray()
        self._to_us: list[tuple[int, bytes]] = []
        self._reading = _is_open(0)
        self._half_closed = False
        self._whole = {d for d in (1, 2) if _is_file(d)}

    def run(self) -> None:
        """Go on until the shell's end of the connection is closed and all of it is written."""
        if not self._reading:
            self._stdin_ended()
        while True:
            ready = self._wait()
            if self._to_us and self._to_us[0][0] in ready:
                self._write()
            if self._reading and 0 in ready:
                self._read()
            events = ready.get(self._connection.fileno(), 0)
            if self._to_shell and events:
                self._send()
            if events & ~select.POLLOUT and not self._to_us and not self._receive():
                return

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        events = 0
        if self._to_us:
            poll.register(self._to_us[0][0], select.POLLOUT)
        else:
            events |= select.POLLIN
        if self._to_shell:
            events |= select.POLLOUT
        elif self._reading:
            poll.register(0, select.POLLIN)
        if events:
            poll.register(self._connection, events)
        return dict(poll.poll())

    def _read(self) -> None:
        try:
            data = os.read(0, _PIECE)
        except OSError:  # EIO: the terminal hung up; SIGHUP is on its way.
            data = b""
        if data:
            self._to_shell += data
        else:
            self._reading = False
            self._stdin_ended()

    def _stdin_ended(self) -> None:
        if self._frames is None:
            # As sshd does it: a terminal has no other way to say so.
            self._to_shell += _END_OF_FILE
        elif not self._half_closed:
            self._half_closed = True
            with suppress(OSError):  # The command has ended already.
                self._connection.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        try:
            del self._to_shell[: self._connection.send(self._to_shell, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:  # The command reads no more; what it still says is on its way to us.
            self._to_shell.clear()
            self._reading = False

    def _receive(self) -> bool:
        try:
            data = self._connection.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._to_us = [(1, data)] if self._frames is None else self._frames.feed(data)
        return True

    def _write(self) -> None:
        descriptor, data = self._to_us[0]
        size = len(data) if descriptor in self._whole else _SAFE
        written = os.write(descriptor, data[:size])
        if written < len(data):
            self._to_us[0] = (descriptor, data[written:])
        else:
            self._to_us.pop(0)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _is_file(descriptor: int) -> bool:
    """A regular file takes any amount at once."""
    return _is_open(descriptor) and stat.S_ISREG(os.fstat(descriptor).st_mode)
