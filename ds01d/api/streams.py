"""`GET /events`: what happens, as it happens, a JSON object a line. Operators all, others what is theirs to see."""

import asyncio

from aiohttp import web

from ds01d import __version__
from ds01d.api import codec
from ds01d.api.connection import Connection
from ds01d.api.throttle import Limits
from ds01d.core.views import chronicle
from ds01d.loop.port import Mind
from ds01d.model.actor import Actor
from ds01d.model.chronicle import EventLine

_OVERRUN = b'{"event_type":"stream.overrun","details":{"why":"the reader is too slow; what came meanwhile is lost"}}\n'


async def follow(
    request: web.BaseRequest, connection: Connection, actor: Actor, mind: Mind, limits: Limits
) -> web.StreamResponse:
    """Send lines until the reader goes, or falls behind; the last line then says so."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Ds01-Version": __version__})
    watch = mind.watch()
    connection.when_lost(watch.close)
    try:
        await response.prepare(request)
        while not connection.gone:
            try:
                line = await asyncio.wait_for(anext(watch), limits.quiet_s)
            except TimeoutError:
                await response.write(b"\n")
                continue
            except StopAsyncIteration:
                if not connection.gone:
                    await response.write(_OVERRUN)
                break
            view = chronicle.visible(line, actor) if isinstance(line, EventLine) else None
            if view is not None:
                await response.write(codec.encode(view) + b"\n")
    finally:
        watch.close()
    await response.write_eof()
    return response
