"""HTTP on a Unix socket: takes requests in, within limits, and knows who sent them; what they mean, `rpc` knows."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ds01d.api import codec, replies, streams
from ds01d.api.desk import Caller
from ds01d.api.peer import Peer, capture
from ds01d.api.replies import error, refusal
from ds01d.api.rpc import Answer, Rpc, error_of
from ds01d.api.throttle import Limits, Throttle
from ds01d.model.actor import Actor
from ds01d.model.errors import AccountsSilent, Refused, TooMany

Identify = Callable[[Peer], Awaitable[Actor]]
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n"
    b"Ds01-Exit: 75\r\n\r\n%s"
)


class Connection(web.RequestHandler):
    """One connection, and the actor at its other end, found out once."""

    __slots__ = ("_actor", "_counted", "_doors", "_refusal", "peer")

    def __init__(self, doors: "Server", manager: web.Server, **options: Any) -> None:  # noqa: ANN401  # aiohttp's own
        super().__init__(manager, **options)
        self._doors = doors
        self._actor: Actor | None = None
        self._refusal: Refused | None = None
        self._counted = False
        self.peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read the kernel's word at once; turn away whom there is no room for."""
        assert isinstance(transport, asyncio.Transport)
        peer = capture(transport.get_extra_info("socket"))
        self._counted = self._doors.admit(self, peer.uid)
        if not self._counted:
            peer.close()
            full = error_of(TooMany("cannot take another connection: too many are open", hint="close some, or wait"))
            body = codec.encode(Answer(error=full).as_json())
            transport.write(_FULL % (len(body), body))
            transport.close()
            return
        self.peer = peer
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the peer."""
        if self.peer is None:
            return
        self._count_out()
        self.peer.close()
        super().connection_lost(exc)

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

    def data_received(self, data: bytes) -> None:
        """Hear nobody who was turned away."""
        if self.peer is not None:
            super().data_received(data)

    async def actor(self) -> Actor:
        """Who is calling; the same for all requests of this connection."""
        assert self.peer is not None
        if self._refusal is not None:
            raise self._refusal
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


class Server:
    """The request door."""

    def __init__(self, *, rpc: Rpc, identify: Identify, throttle: Throttle, limits: Limits) -> None:
        self.identify = identify
        self._mind = rpc.mind
        self.throttle = throttle
        self._rpc = rpc
        self._limits = limits
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        #: Connections of which nobody knows yet who is at the other end, the oldest first.
        self._unproved: dict[Connection, None] = {}

    def admit(self, connection: Connection, uid: int) -> bool:
        """Count a connection in. When all places are taken, whoever has kept silent for longest gives his up.

        A limit for each uid does not suffice: a user's range for containers of his own has 65536 uids without account.
        """
        if not self.throttle.connect(uid):
            if not self.throttle.has_own_room(uid) or not self._unproved:
                return False
            next(iter(self._unproved)).give_way()
            if not self.throttle.connect(uid):
                return False
        self._unproved[connection] = None
        return True

    def proved(self, connection: Connection) -> None:
        """It has an actor at its other end, and keeps its place."""
        self._unproved.pop(connection, None)

    def count_out(self, connection: Connection, uid: int) -> None:
        """Its place is free."""
        self._unproved.pop(connection, None)
        self.throttle.disconnect(uid)

    async def serve(self, sock: socket.socket) -> None:
        """Answer on a listening socket until closed."""
        loop = asyncio.get_running_loop()
        manager = self._http = web.Server(self._handle)
        options: dict[str, Any] = {
            "loop": loop,
            "tcp_keepalive": False,
            "keepalive_timeout": self._limits.head_s,
            "auto_decompress": False,
            "access_log": None,
            "logger": _logger(),
            "lingering_time": 1.0,
        }
        # `create_server`, not `create_unix_server`: the latter removes the socket's file, which is systemd's.
        self._listener = await loop.create_server(lambda: Connection(self, manager, **options), sock=sock)

    async def close(self, patience_s: float = 1.0) -> None:
        """Take no new connections, let requests under way end, then cut."""
        if self._listener is not None:
            self._listener.close()
        if self._http is not None:
            await self._http.shutdown(patience_s)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if "Origin" in request.headers:
            return await self._send(request, refusal(request, 403, "cannot serve a browser: the request has an Origin"))
        match request.method, request.path:
            case "POST", "/rpc":
                response = await self._rpc_response(request)
            case "GET", "/events":
                return await self._events(request)
            case "GET", "/healthz":
                response = web.Response(text="ok\n")
            case _, "/rpc":
                response = refusal(request, 405, "cannot take this here: send a POST to /rpc", Allow="POST")
            case _, "/events" | "/healthz":
                response = refusal(request, 405, "cannot take this here: send a GET", Allow="GET")
            case _:
                response = refusal(request, 404, "cannot find this: there are POST /rpc, GET /events and GET /healthz")
        return await self._send(request, response)

    async def _send(self, request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
        """Send an answer; a caller who does not take it is cut off."""
        try:
            async with asyncio.timeout(self._limits.answer_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the caller does not take the answer") from None
        return response

    async def _rpc_response(self, request: web.BaseRequest) -> web.Response:
        if request.content_type != "application/json" or "Content-Encoding" in request.headers:
            return refusal(request, 415, "cannot read this: send application/json, as it is")
        body = await self._body(request)
        if isinstance(body, web.Response):
            return body
        try:
            actor = await _connection(request).actor()
        except Refused as e:
            return error(request, error_of(e), _status_of(e))
        caller = Caller(actor=actor, gone=lambda: request.transport is None)
        answer = await self._rpc.answer(body, caller)
        return replies.response(request, answer, now=self._mind.now(), me=actor.name)

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            actor = await _connection(request).actor()
            with self.throttle.watching(actor.uid):
                return await streams.follow(request, actor, self._mind, self._limits)
        except Refused as e:
            return await self._send(request, error(request, error_of(e), _status_of(e)))

    async def _body(self, request: web.BaseRequest) -> bytes | web.Response:
        limits = self._limits
        too_much = f"cannot take so much: {limits.body} bytes are the limit"
        if request.content_length is not None and request.content_length > limits.body:
            return refusal(request, 413, too_much)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limits.body:
                        return refusal(request, 413, too_much)
        except TimeoutError:
            return refusal(request, 408, f"cannot wait any longer: the body did not come within {limits.body_s:g} s")
        except (web.RequestPayloadError, HttpProcessingError):
            return refusal(request, 400, "cannot read the body: it is not what its head says")
        return bytes(body)


def _logger() -> logging.Logger:
    """Aiohttp's voice, without what anybody can make it say by sending rubbish, or by hanging up."""
    logger = logging.getLogger("ds01d.http")
    logger.addFilter(_not_their_fault)
    return logger


def _not_their_fault(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError | ConnectionError)


def _connection(request: web.BaseRequest) -> Connection:
    connection = request.protocol
    assert isinstance(connection, Connection)
    return connection


def _status_of(e: Refused) -> int:
    match e:
        case AccountsSilent():
            return 503
        case TooMany():
            return 429
        case _:
            return 403
