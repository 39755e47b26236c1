r"""The second socket: who shows a ticket in time, and is its owner, is handed the descriptor of his shell.

One line in, one line out: `TICKET\n`, then `ok EXEC\n` with the descriptor beside it, or `no KIND MESSAGE\n`.
Nothing here ever waits for a caller longer than it takes to send one line into an empty socket buffer.
"""

import asyncio
import os
import socket

from ds01d.api.connection import Identify
from ds01d.api.peer import Peer, capture
from ds01d.api.ports import Sessions
from ds01d.api.throttle import Throttle
from ds01d.logs import log
from ds01d.model.errors import Denied, Invalid, Refused, TooMany

#: Seconds in which the ticket has to be shown.
SHOW_S = 5.0
_TICKET_MAX = 256


class ShellDoor:
    """The door for descriptors."""

    def __init__(self, *, sessions: Sessions, identify: Identify, throttle: Throttle, show_s: float = SHOW_S) -> None:
        self._sessions = sessions
        self._identify = identify
        self._show_s = show_s
        #: Its own, so that shells are not shut out by many requests. It bounds all and each: whoever shows no ticket
        #: holds his own places for five seconds, and nobody else's.
        self._throttle = throttle
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        """Take callers on a listening socket until cancelled."""
        loop = asyncio.get_running_loop()
        sock.settimeout(0)
        try:
            while True:
                try:
                    caller, _ = await loop.sock_accept(sock)
                except OSError as e:
                    # Out of descriptors, most likely: the callers wait in the backlog meanwhile.
                    log.error("shells.accept_failed", error=str(e), again_in_s=1, do="see LimitNOFILE of ds01d.service")
                    await asyncio.sleep(1.0)
                    continue
                self._begin(caller)
        finally:
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def _begin(self, caller: socket.socket) -> None:
        caller.settimeout(0)
        try:
            peer = capture(caller)
        except OSError:
            caller.close()
            return
        if not self._throttle.connect(peer.uid):
            _say_no(caller, TooMany("cannot hand out another shell now: too many are asked for at once"))
            peer.close()
            caller.close()
            return
        task = asyncio.create_task(self._serve_one(caller, peer), name=f"shell door for uid {peer.uid}")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve_one(self, caller: socket.socket, peer: Peer) -> None:
        try:
            async with asyncio.timeout(self._show_s):
                ticket = await _ticket(caller)
            await self._hand_over(caller, peer, ticket)
        except TimeoutError:
            _say_no(caller, Invalid(f"cannot wait any longer for a ticket: {self._show_s:g} s are the limit"))
        except Refused as e:
            _say_no(caller, e)
        except OSError as e:
            log.info("shells.caller_left", uid=peer.uid, error=str(e))
        finally:
            self._throttle.disconnect(peer.uid)
            peer.close()
            caller.close()

    async def _hand_over(self, caller: socket.socket, peer: Peer, ticket: str) -> None:
        if peer.pidfd is None:
            raise Denied("cannot tell which process this is: it is gone already")
        # Identity takes no pidfd away: the session keeps one of its own from it.
        actor = await self._identify(peer)
        exec_id, fd = await self._sessions.claim(ticket, actor.uid, peer.pidfd)
        try:
            socket.send_fds(caller, [f"ok {exec_id}\n".encode()], [fd], socket.MSG_NOSIGNAL)
        finally:
            os.close(fd)
        log.info("shells.handed_over", user=actor.name, uid=actor.uid, exec=exec_id, pid=peer.pid)


async def _ticket(caller: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        got = await loop.sock_recv(caller, _TICKET_MAX + 1 - len(line))
        line += got
        if not got or len(line) > _TICKET_MAX:
            raise Invalid("cannot read the ticket: expected one line", hint="send the ticket of exec.start, then \\n")
    try:
        return line.strip().decode("ascii")
    except UnicodeDecodeError:
        raise Invalid("cannot read the ticket: it is not ASCII") from None


def _say_no(caller: socket.socket, no: Refused) -> None:
    """Say it if it can be said at once; a caller who does not read is not waited for."""
    words = " ".join(f"no {no.kind} {no.message}".split())
    try:
        caller.send(f"{words}\n".encode(), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError as e:
        log.info("shells.no_unheard", kind=no.kind, error=str(e))
