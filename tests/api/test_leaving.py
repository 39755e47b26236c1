"""Who says that he sends no more still gets his answer; who hangs up leaves nothing behind."""

import asyncio
import json

import pytest

from ds01d.model.chronicle import EventLine
from tests.api.caller import Client, connect
from tests.api.conftest import House
from tests.api.mind import NOON

CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "system.version"}).encode()
HEAD = b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
EVENTS = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
#: Far below every limit in time.
AT_ONCE_S = 2


async def says_last(house: House, words: bytes) -> Client:
    """A caller who sends this, and then that he sends no more, as `nc -N` does."""
    client = await house.client()
    client.writer.write(words)
    client.writer.write_eof()
    return client


async def heard(client: Client) -> bytes:
    """All that still comes."""
    return await asyncio.wait_for(client.reader.read(), AT_ONCE_S)


async def test_who_sends_no_more_is_answered_and_then_let_go(house: House) -> None:
    client = await says_last(house, HEAD % len(CALL) + CALL)
    assert "result" in (await client.receive()).json
    assert await heard(client) == b""


async def test_a_long_answer_comes_whole_to_him_too(house: House) -> None:
    client = await says_last(house, EVENTS.replace(b"/events", b"/healthz") * 5)
    assert (await heard(client)).count(b"200 OK") == 5


async def test_an_answer_that_takes_time_comes_to_him_too(house: House) -> None:
    house.mind.asleep = house.mind.patient = True
    create = {"name": "a", "image": "python:3.12", "user": "alice", "wait_s": 60}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "container.create", "params": create}).encode()
    client = await says_last(house, HEAD % len(body) + body)
    await house.until(lambda: len(house.mind.waited) == 1)
    house.mind.patient = False
    assert (await client.receive()).json["error"]["data"]["kind"] == "pending"


@pytest.mark.parametrize("half", [b"", b"POST /rpc HT", HEAD % 50, HEAD % 50 + b"{"])
async def test_half_a_request_and_no_more_ends_the_connection_at_once(house: House, half: bytes) -> None:
    client = await says_last(house, half)
    assert await heard(client) == b""
    await house.until(lambda: not house.server.throttle.connection_count)


async def test_a_stream_that_nobody_reads_any_more_leaves_its_place_at_once(house: House) -> None:
    sock = connect(house.path)
    sock.send(EVENTS)
    await house.until(lambda: bool(house.mind.watchers))
    sock.close()
    async with asyncio.timeout(AT_ONCE_S):
        await house.until(lambda: not house.mind.watchers and not house.server.throttle.connection_count)
    assert not house.server.throttle._watching


async def test_a_reader_who_sends_no_more_hears_what_happens(house: House) -> None:
    client = await says_last(house, EVENTS)
    await client.reader.readuntil(b"\r\n\r\n")
    house.mind.tell(EventLine(at=NOON, event_type="maintenance.alert", details={"text": "a ghost was met"}))
    assert b"a ghost was met" in await asyncio.wait_for(
        client.reader.readuntil(b"\n"), AT_ONCE_S
    ) + await client.reader.readuntil(b"\n")
