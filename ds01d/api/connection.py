"""One connection at the request door: who is at its other end, found out once, and whether he is still there.

It takes in little at a time, so that many who send and never read cost next to nothing.
"""

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser

from ds01d.api import codec
from ds01d.api.peer import Peer, capture
from ds01d.api.rpc import Answer, error_of
from ds01d.model.actor import Actor
from ds01d.model.errors import AccountsSilent, Refused, TooMany

Identify = Callable[[Peer], Awaitable[Actor]]

#: Bytes that are taken in at once, and that wait for whoever has not begun to read his request yet.
READ_BYTES = 2**14
#: Requests of one connection that are ready before they are asked for.
READY_REQUESTS = 2
#: One for all connections: what was read is copied out before the event loop goes on.
_READ = memoryview(bytearray(READ_BYTES))
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n"
    b"Ds01-Exit: 75\r\n\r\n%s"
)


class Doors(Protocol):
    """The server, as its connections need it."""

    @property
    def identify(self) -> Identify:
        """Finds out who is calling."""
        ...

    @property
    def answer_s(self) -> float:
        """For a caller to take what waits for him."""
        ...

    def admit(self, connection: "Connection", uid: int) -> bool:
        """Count a connection in, if there is room."""
        ...

    def proved(self, connection: "Connection") -> None:
        """It has an actor at its other end."""
        ...

    def count_out(self, connection: "Connection", uid: int) -> None:
        """Its place is free."""
        ...


class Connection(web.RequestHandler, asyncio.BufferedProtocol):
    """One connection, and the actor at its other end, found out once."""

    __slots__ = (
        "_actor",
        "_counted",
        "_cut",
        "_doors",
        "_ended",
        "_newest",
        "_refusal",
        "_socket",
        "_when_lost",
        "peer",
    )

    def __init__(self, doors: Doors, manager: web.Server, **options: Any) -> None:  # noqa: ANN401  # aiohttp's own
        super().__init__(manager, read_bufsize=READ_BYTES, auto_decompress=False, **options)
        # Aiohttp's own parser makes 32 requests ready beforehand, which cost ten times as much as their bytes.
        self._max_msg_queue_size, self._msg_queue_resume_size = READY_REQUESTS, READY_REQUESTS // 2
        self._parser = HttpRequestParser(
            self,
            self._loop,
            READ_BYTES,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=READY_REQUESTS,
        )
        self._doors = doors
        self._actor: Actor | None = None
        self._refusal: Refused | None = None
        self._counted = False
        #: Cuts off who takes nothing; while something waits for him.
        self._cut: asyncio.TimerHandle | None = None
        #: The other end has said that it sends no more.
        self._ended = False
        self._newest: StreamReader | None = None
        self._socket: socket.socket | None = None
        self._when_lost: list[Callable[[], None]] = []
        self.peer: Peer | None = None

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read the kernel's word at once; turn away whom there is no room for."""
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport.get_extra_info("socket")
        assert self._socket is not None
        peer = capture(self._socket)
        self._counted = self._doors.admit(self, peer.uid)
        if not self._counted:
            peer.close()
            full = error_of(TooMany("cannot take another connection: too many are open", hint="close some, or wait"))
            body = codec.encode(Answer(error=full).as_json())
            transport.write(_FULL % (len(body), body))
            transport.close()
            return
        self.peer = peer
        # An answer counts as sent when the kernel has all of it: what waits here is memory of ours.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the peer, and tell whoever waits for it to go."""
        if self.peer is None:
            return
        self._disarm()
        self._count_out()
        self.peer.close()
        super().connection_lost(exc)
        self._refusal = None
        for tell in self._when_lost:
            tell()
        self._when_lost.clear()

    def pause_writing(self) -> None:
        """The kernel does not take all of it: the caller has so long to read what waits, an answer or a stream."""
        super().pause_writing()
        if self.transport is not None:
            self._cut = self._loop.call_later(self._doors.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        """All of it is the kernel's."""
        super().resume_writing()
        self._disarm()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # how much it is, is our matter
        """Where the next bytes go."""
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came."""
        # Hear nobody who was turned away.
        if self.peer is not None:
            self.data_received(bytes(_READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take in what came; of all requests only the newest can be incomplete."""
        super().data_received(data)
        if self._messages:
            self._newest = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's word for it; aiohttp always says no
        """The other end sends no more: what it asked in full is still answered, if somebody is there to read it."""
        self._ended = True
        # A request is taken up a moment before it is somebody's: then nothing waits for the next one any more.
        busy = bool(self._messages) or self._waiter is None or self._waiter.done()
        return busy and self._newest is not None and self._newest.is_eof() and not self._hung_up()

    # ---- the server's side

    async def actor(self) -> Actor:
        """Who is calling; the same for all requests of this connection."""
        assert self.peer is not None
        if self._refusal is not None:
            # Without the frames of the last time, which hold all that was asked then.
            raise self._refusal.with_traceback(None)
        if self._actor is None:
            try:
                self._actor = await self._doors.identify(self.peer)
            except AccountsSilent:
                raise
            except Refused as e:
                self._refusal = e
                raise
            self.peer.close()
            self._doors.proved(self)
        return self._actor

    @property
    def uid(self) -> int:
        """Who connected, by the kernel's word; what that proves, `actor` says."""
        assert self.peer is not None
        return self.peer.uid

    @property
    def last(self) -> bool:
        """Whether nothing can come after the request that is being answered."""
        return self._ended and not self._messages

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to read an answer."""
        return self.transport is None or (self._ended and self._hung_up())

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have this called when the connection ends."""
        self._when_lost.append(tell)

    def give_way(self) -> None:
        """Leave the place to somebody else, at once."""
        self._count_out()
        if self.transport is not None:
            self.transport.abort()

    def _count_out(self) -> None:
        if self._counted:
            assert self.peer is not None
            self._counted = False
            self._doors.count_out(self, self.peer.uid)

    def _disarm(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _hung_up(self) -> bool:
        """Whether the other end is closed in both directions; one that only sends no more still reads."""
        assert self._socket is not None
        fd = self._socket.fileno()
        if fd < 0:
            return True
        poll = select.poll()
        poll.register(fd, 0)
        return bool(poll.poll(0))
