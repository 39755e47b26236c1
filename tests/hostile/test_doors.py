"""The doors under attack: for a moment with every `make quick`, for a minute with every `make test`."""

import asyncio
import time

import pytest

from tests.api.conftest import House, house, limits
from tests.api.fakes import BOB
from tests.hostile.fuzz import Storm

__all__ = ["house", "limits"]


async def test_a_storm_of_bad_requests_leaves_no_trace_and_delays_nobody() -> None:
    print(await Storm(str(int(time.time())), 1.0).run())


@pytest.mark.long
async def test_a_minute_of_bad_requests_leaves_no_trace_and_delays_nobody() -> None:
    print(await Storm(str(int(time.time())), 60.0).run())


async def test_who_hangs_up_in_the_middle_writes_nothing_into_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for rest in (
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        b"",
    ):
        client = await house.client(BOB)
        client.writer.write(rest or b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        client.writer.transport.abort()
    await house.until(lambda: not house.server.throttle.connection_count)
    await asyncio.sleep(0.05)
    assert caplog.records == []
