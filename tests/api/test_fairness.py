"""However much one caller sends, and however little he reads: others have their turn, he has his share of memory."""

import asyncio
import json
import traceback

import pytest

from ds01d.api.throttle import Limits
from ds01d.api.turns import AT_ONCE, Turns
from tests.api.caller import Client, Json, connect
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, NOBODY

HEAD = b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
DISCOVER = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}).encode()


async def test_a_thousand_requests_of_one_caller_stand_in_line_and_another_walks_past_them() -> None:
    turns, done = Turns(), []

    async def one(uid: int) -> None:
        await turns.wait(uid)
        done.append(uid)

    many = [asyncio.create_task(one(1)) for _ in range(1000)]
    await asyncio.sleep(0)
    assert done == [1] * AT_ONCE
    await one(2)
    assert done[-1] == 2
    assert len(done) <= 2 * AT_ONCE
    await asyncio.gather(*many)
    assert not turns._waiting


async def test_one_who_left_the_line_holds_nobody_up() -> None:
    turns = Turns()
    for _ in range(AT_ONCE):
        await turns.wait(1)
    line = [asyncio.create_task(turns.wait(1)) for _ in range(2 * AT_ONCE)]
    await asyncio.sleep(0)
    for task in line[:-1]:
        task.cancel()
    await asyncio.wait_for(line[-1], 1)


@pytest.mark.root
async def test_who_is_refused_again_and_again_leaves_nothing_of_his_requests_behind(house: House) -> None:
    stranger = await house.client(NOBODY)
    for _ in range(30):
        assert _kind(await _asked(stranger)) == "denied"
    (connection,) = house.server._unproved
    assert connection._refusal is not None
    # A refusal that is raised again takes the frames of each time along, and these hold a request each.
    assert len(list(traceback.walk_tb(connection._refusal.__traceback__))) < 10


class TestMemory:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(carried_per_uid=200_000)

    async def test_large_requests_of_one_caller_are_taken_one_by_one(self, house: House) -> None:
        first, second, small = [await house.client() for _ in range(3)]
        first.writer.write(HEAD % 1_000_000 + b" " * 180_000)
        await house.until(lambda: sum(house.server.throttle._carried.values()) == 180_000)
        refused = await second.send("POST", "/rpc", b" " * 100_000)
        assert _kind(refused.json) == "too_many"
        assert "one by one" in refused.json["error"]["data"]["hint"]
        assert "result" in await small.call("system.version")
        await first.close()
        await house.until(lambda: not house.server.throttle._carried)
        assert _kind((await (await house.client()).send("POST", "/rpc", b" " * 100_000)).json) == "parse_error"

    async def test_a_request_alone_may_be_larger_than_the_share(self, house: House) -> None:
        assert _kind((await (await house.client()).send("POST", "/rpc", b" " * 2**20)).json) == "parse_error"

    @pytest.mark.root
    async def test_answers_that_nobody_reads_keep_only_their_own_caller_from_large_ones(self, house: House) -> None:
        unread = [connect(house.path, BOB) for _ in range(8)]
        for sock in unread:
            sock.send((HEAD % len(DISCOVER) + DISCOVER) * 40)
        await house.until(lambda: house.server.throttle._carried.get(BOB, 0) > 200_000 - 2 * 70_000)
        bob, alice = await house.client(BOB), await house.client(ALICE)
        await house.until(lambda: not house.server._turns._waiting)
        assert _kind(await bob.call("rpc.discover")) == "too_many"
        assert "result" in await bob.call("system.version")
        assert "result" in await alice.call("rpc.discover")
        for sock in unread:
            sock.close()
        await house.until(lambda: not house.server.throttle._carried)
        assert "result" in await bob.call("rpc.discover")


async def _asked(client: Client) -> Json:
    return (await client.send("POST", "/rpc", DISCOVER)).json


def _kind(answer: Json) -> str:
    return str(answer["error"]["data"]["kind"]) if "error" in answer else "ok"
