"""The engine's event stream, kept open: hints of what happened, and word when the engine falls silent or answers again.

aiodocker's own subscription hears nothing after the first drop and rewrites times, hence this one. An event proves
nothing and may be lost with a stream: a new one begins a little before the old one's end, and a listing follows.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from ds01d.adapters.docker import DockerEngine, EngineError, EngineLate
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.docker_reading import Unreadable
from ds01d.core.events import EngineAnswered, EngineHinted, EngineSilent, Event
from ds01d.model.facts import Engine
from ds01d.model.ids import EngineId

#: What is worth a look. An exec's events carry its whole command line, and a health check makes three each time.
ACTIONS: Final = ("create", "start", "die", "stop", "oom", "destroy", "pause", "unpause", "restart", "rename")
#: Seconds. Events come within a millisecond of what they tell; the overlap is for clocks that were set.
OVERLAP_S: Final = 2.0
QUIET_S: Final = 10.0
ANSWER_S: Final = 5.0
BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: An event carries all labels of its container.
LINE_BYTES: Final = 4 * 2**20


class _Actor(msgspec.Struct, rename={"id": "ID"}):
    id: str = ""


class _Line(msgspec.Struct, rename={"action": "Action", "actor": "Actor", "time_nano": "timeNano"}):
    action: str = ""
    actor: _Actor = msgspec.field(default_factory=_Actor)
    time_nano: int = 0


_line = msgspec.json.Decoder(_Line)


class EngineEvents:
    """Follows one engine for ever; `reconnected` is called after each new stream, for a listing."""

    def __init__(
        self,
        engine: DockerEngine,
        *,
        post: Callable[[Event], None],
        reconnected: Callable[[], None],
        process: EngineProcess,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._engine = engine
        self._post = post
        self._reconnected = reconnected
        self._process = process
        self._quiet_s = quiet_s
        self._known: tuple[int, int] | None = None
        self._met = False
        #: Why it is silent, as it was told last; empty: it answers.
        self._silent = ""
        self._since = 0.0
        self._failures = 0

    async def run(self) -> None:
        """Open a stream, follow it until it breaks, open the next."""
        connector = aiohttp.UnixConnector(str(self._engine.socket))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LINE_BYTES) as session:
            while True:
                started = time.time()
                try:
                    await self._follow(session)
                    reason = "it closed its event stream"
                except aiohttp.ClientConnectorError as error:
                    reason = (error.os_error.strerror or str(error.os_error)).lower()
                except (TimeoutError, EngineLate):
                    reason = f"no word from it within {ANSWER_S:g} s"
                except (EngineError, Unreadable) as error:
                    reason = str(error)
                except (aiohttp.ClientError, OSError):
                    reason = "the connection to it broke"
                except ValueError:
                    # One event was longer than our buffer: the next stream must not begin with it again.
                    self._since = time.time()
                    reason = "it sent an event that is too long"
                self._since = self._since or started - OVERLAP_S
                # First a stream breaks, then nobody listens any more: what is told is what is true now.
                if reason != self._silent:
                    self._silent = reason
                    self._post(EngineSilent(reason=reason))
                await asyncio.sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
                self._failures += 1

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        filters = json.dumps({"type": ["container"], "event": list(ACTIONS)})
        params = {"filters": filters} | ({"since": f"{self._since:.9f}"} if self._since else {})
        # Not wait_for: on Python 3.11 it can swallow the cancellation that ends us.
        async with asyncio.timeout(ANSWER_S):
            response = await session.get("http://localhost/events", params=params)
        async with response:
            response.raise_for_status()
            # The stream is open before anybody lists, so that nothing falls between the two.
            self._engine.renegotiate()
            engine = await self._engine.info(ANSWER_S)
            self._answered(engine)
            while line := await self._next_line(session, response):
                self._hint(line)

    def _answered(self, engine: Engine) -> None:
        process = self._process.read()
        # Without a pid file a stream that broke counts as a restart: every container is looked at, which harms nobody.
        restarted = self._met and (process is None or process != self._known)
        if process is not None:
            engine = msgspec.structs.replace(engine, since=EngineProcess.since(process))
        self._met, self._known, self._silent, self._failures = True, process, "", 0
        self._post(EngineAnswered(engine=engine, restarted=restarted))
        self._reconnected()

    async def _next_line(self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> bytes:
        """The next event, or nothing at the stream's end; a stream that is quiet is asked whether it still lives."""
        reading = asyncio.ensure_future(response.content.readline())
        try:
            while True:
                done, _ = await asyncio.wait([reading], timeout=self._quiet_s)
                if done:
                    return reading.result()
                async with asyncio.timeout(ANSWER_S), session.get("http://localhost/_ping") as answer:
                    answer.raise_for_status()
        finally:
            reading.cancel()

    def _hint(self, line: bytes) -> None:
        try:
            event = _line.decode(line)
        except msgspec.DecodeError:
            return  # a hint that cannot be read is no hint; the next listing knows
        at = event.time_nano / 1e9
        self._since = max(self._since, at - OVERLAP_S)
        if event.actor.id:
            self._post(EngineHinted(engine_id=EngineId(event.actor.id), action=event.action, at=at))
