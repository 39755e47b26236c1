"""HTTP on a Unix socket: takes requests in, within limits, and knows who sent them; what they mean, `rpc` knows."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ds01d.api import replies, streams
from ds01d.api.connection import Connection, Identify
from ds01d.api.desk import Caller
from ds01d.api.replies import error, refusal
from ds01d.api.rpc import Rpc, error_of
from ds01d.api.throttle import Limits, Throttle
from ds01d.api.turns import Turns
from ds01d.model.actor import Actor
from ds01d.model.errors import AccountsSilent, Refused, TooMany


class Server:
    """The request door."""

    def __init__(self, *, rpc: Rpc, identify: Identify, throttle: Throttle, limits: Limits) -> None:
        self.identify = identify
        self.answer_s = limits.answer_s
        self._mind = rpc.mind
        self.throttle = throttle
        self._rpc = rpc
        self._limits = limits
        self._turns = Turns()
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
        if request.transport is None:
            raise ConnectionResetError("the caller left before his request was taken up")
        await self._turns.wait(_connection(request).uid)
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
        """Send an answer; its connection cuts off who does not take it."""
        connection = _connection(request)
        size = len(response.body) if isinstance(response.body, bytes) else 0
        try:
            with self.throttle.carrying(connection.uid) as carry:
                carry(size)
                if connection.last:
                    response.force_close()
                await response.prepare(request)
                await response.write_eof()
        except TooMany as e:
            return await self._send(request, error(request, error_of(e), 200))
        return response

    async def _rpc_response(self, request: web.BaseRequest) -> web.Response:
        if request.content_type != "application/json" or "Content-Encoding" in request.headers:
            return refusal(request, 415, "cannot read this: send application/json, as it is")
        connection = _connection(request)
        try:
            actor = await connection.actor()
        except Refused as e:
            return error(request, error_of(e), _status_of(e))
        with self.throttle.carrying(actor.uid) as carry:
            body = await self._body(request, carry)
            if isinstance(body, web.Response):
                return body
            return await self._answered(request, body, actor)

    async def _answered(self, request: web.BaseRequest, body: bytes, actor: Actor) -> web.Response:
        connection = _connection(request)
        answer = await self._rpc.answer(body, Caller(actor=actor, gone=lambda: connection.gone))
        return replies.response(request, answer, now=self._mind.now(), me=actor.name)

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            actor = await _connection(request).actor()
            with self.throttle.watching(actor.uid):
                return await streams.follow(request, _connection(request), actor, self._mind, self._limits)
        except Refused as e:
            return await self._send(request, error(request, error_of(e), _status_of(e)))

    async def _body(self, request: web.BaseRequest, carry: Callable[[int], None]) -> bytes | web.Response:
        limits = self._limits
        too_much = f"cannot take so much: {limits.body} bytes are the limit"
        if request.content_length is not None and request.content_length > limits.body:
            return refusal(request, 413, too_much)
        body = bytearray()
        content = request.content
        try:
            if content.is_eof():
                # All of it came with its head, as nearly always: there is nothing to wait for, nor to time.
                body += content.read_nowait()
                carry(len(body))
                return bytes(body) if len(body) <= limits.body else refusal(request, 413, too_much)
            async with asyncio.timeout(limits.body_s):
                async for chunk in content.iter_any():
                    carry(len(chunk))
                    body += chunk
                    if len(body) > limits.body:
                        return refusal(request, 413, too_much)
        except TimeoutError:
            return refusal(request, 408, f"cannot wait any longer: the body did not come within {limits.body_s:g} s")
        except (web.RequestPayloadError, HttpProcessingError):
            return refusal(request, 400, "cannot read the body: it is not what its head says")
        except TooMany as e:
            return error(request, error_of(e), 200)
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
