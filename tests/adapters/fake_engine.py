"""An engine's socket for tests: answers as it is told, hangs, hangs up, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]

FULL_ID = "ab" * 32
NEVER = "0001-01-01T00:00:00Z"


def inspected(**state: object) -> dict[str, object]:
    """An inspect of a container of alice's that was created and never ran, but for `state`."""
    return {
        "Id": FULL_ID,
        "Name": "/train._.1001",
        "State": {"Status": "created", "StartedAt": NEVER, "FinishedAt": NEVER, "Pid": 0} | state,
        "Config": {"Image": "bb:latest", "Labels": {"ds01.id": "l-1", "ds01.key": "k1"}},
        "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["ds01/gpu=k1"]}], "CgroupParent": ""},
    }


class FakeEngine:
    """`replies` are by method and the path without its version; what is not there is a 404."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[str] = []
        self.queries: list[Mapping[str, str]] = []
        self.bodies: list[object] = []
        self.name = "ENGINE:1"
        self._heard = asyncio.Condition()
        self.replies: dict[str, Reply] = {
            "GET version": self.says({"ApiVersion": "1.45"}),
            "GET _ping": self.says("OK"),
            "GET info": self._info,
        }

    async def _info(self, _: web.Request) -> web.StreamResponse:
        said = {"ID": self.name, "ServerVersion": "26.1.5", "CgroupDriver": "systemd", "CDISpecDirs": ["/etc/cdi"]}
        return web.json_response(said)

    @staticmethod
    def says(body: object, status: int = 200) -> Reply:
        async def reply(_: web.Request) -> web.StreamResponse:
            if status == 204:  # no content
                return web.Response(status=204)
            # As the engine says it, without a charset: with one, aiodocker takes the JSON itself for the message.
            return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")

        return reply

    @staticmethod
    def refuses(message: str, status: int = 500) -> Reply:
        return FakeEngine.says({"message": message}, status)

    @staticmethod
    async def hangs_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    @staticmethod
    def waits_for(event: asyncio.Event, then: Reply) -> Reply:
        async def reply(request: web.Request) -> web.StreamResponse:
            await event.wait()
            return await then(request)

        return reply

    async def _any(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        path = "/".join(parts[1:] if parts[0].startswith("v1.") else parts)
        asked = f"{request.method} {path}"
        async with self._heard:
            self.asked.append(asked)
            self._heard.notify_all()
        self.queries.append(dict(request.query))
        if request.can_read_body:
            self.bodies.append(json.loads(await request.read()))
        reply = self.replies.get(asked, self.refuses(f"No such container: {path}", 404))
        return await reply(request)

    async def asked_for(self, asked: str, times: int) -> None:
        """Returns when this was asked so often."""
        async with asyncio.timeout(5), self._heard:
            await self._heard.wait_for(lambda: self.asked.count(asked) >= times)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeEngine"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._any)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(self.socket)).start()
            yield self
        finally:
            await runner.cleanup()
