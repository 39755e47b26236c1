"""What systemd is told and what it keeps for us: readiness, the watchdog, and descriptors that outlive this process.

Outside systemd everything here does nothing. The protocol is small, and its libraries know no descriptor store.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, NamedTuple

#: Seconds; systemd reads at once unless it is busy with a reload.
SEND_S: Final = 1.0
BARRIER_S: Final = 5.0
_FIRST_FD: Final = 3
_USEC: Final = 1e6


class Inherited(NamedTuple):
    """A descriptor that systemd handed to us, by the name that it was stored or declared under."""

    name: str
    fd: int


def inherited(environ: MutableMapping[str, str] | None = None) -> tuple[Inherited, ...]:
    """Take over the sockets and stored descriptors of this start; a second call finds none."""
    environ = os.environ if environ is None else environ
    mine = environ.pop("LISTEN_PID", "") == str(os.getpid())
    count, names = int(environ.pop("LISTEN_FDS", "0")), environ.pop("LISTEN_FDNAMES", "").split(":")
    if not mine:
        return ()
    names += ["unknown"] * (count - len(names))
    taken = tuple(Inherited(name, _FIRST_FD + index) for index, name in enumerate(names[:count]))
    for _, fd in taken:
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return taken


class Notifier:
    """The way to systemd. `kept` is how many descriptors its store takes; None: not known."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._socket: socket.socket | None = None
        address = environ.get("NOTIFY_SOCKET", "")
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(SEND_S)
            # Connected, because a send with descriptors ignores an address; `@` stands for the abstract namespace.
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
        #: systemd 254 and later say it, before that nobody does.
        self.kept = int(environ["FDSTORE"]) if environ.get("FDSTORE", "").isdigit() else None
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "") if ours else ""
        #: Seconds between two signs of life, half of what systemd waits for; None: it does not watch.
        self.watchdog_s = int(usec) / _USEC / 2 if usec.isdigit() and int(usec) > 0 else None

    @property
    def listens(self) -> bool:
        """Whether there is a systemd to talk to."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Serving from now on."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        """Still alive."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates of these for our next process, under one name: no colon in it, at most 255 characters."""
        # FDPOLL=0, because systemd would drop a socket by itself when its other end hangs up.
        self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=fds)

    def forget(self, name: str) -> None:
        """Drop every descriptor kept under this name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def barrier(self) -> None:
        """Return when systemd took in all that was sent; what a process sent that died meanwhile, it throws away."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        hung_up = asyncio.Event()
        loop.add_reader(reader, hung_up.set)
        try:
            try:
                self._send("BARRIER=1", fds=[writer])
            finally:
                os.close(writer)
            async with asyncio.timeout(BARRIER_S):
                await hung_up.wait()
        finally:
            loop.remove_reader(reader)
            os.close(reader)

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str, fds: Sequence[int] = ()) -> None:
        if self._socket is not None:
            socket.send_fds(self._socket, ["\n".join(lines).encode()], list(fds))


def _line(text: str) -> str:
    return " ".join(text.split())
