"""What one user may cost all others: no request holds the daemon for long, and whatever costs it time has its price."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from ds01d.adapters.paths import _CHILDREN_MAX
from ds01d.api.desk import Caller
from ds01d.api.rpc import Answer
from ds01d.api.throttle import Limits
from ds01d.model.actor import Actor
from tests.api.caller import connect
from tests.api.conftest import House, house, limits
from tests.api.fakes import ALICE, BOB

__all__ = ["house", "limits"]

DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"}


async def test_others_have_their_turn_between_the_calls_of_a_batch(house: House) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    actor = Actor(uid=ALICE, gid=ALICE, name="alice", groups=(), operator=False, pid=1, login_uid=None)
    caller = Caller(actor=actor, gone=lambda: False)
    await house.server._rpc.answer(json.dumps([DISCOVER] * 20).encode(), caller)
    beside.cancel()
    assert turns >= 20


async def test_the_methods_are_described_once_and_for_all(house: House) -> None:
    actor = Actor(uid=ALICE, gid=ALICE, name="alice", groups=(), operator=False, pid=1, login_uid=None)
    caller = Caller(actor=actor, gone=lambda: False)
    first, second = [await house.server._rpc.answer(json.dumps(DISCOVER).encode(), caller) for _ in range(2)]
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert first.result is not None
    assert first.result is second.result


def test_paths_that_hang_leave_the_daemon_enough_processes_to_live_on() -> None:
    unit = (Path(__file__).parents[2] / "packaging" / "systemd" / "ds01d.service").read_text()
    found = re.search(r"^TasksMax=(\d+)$", unit, re.MULTILINE)
    assert found is not None
    # Each is a child and the thread that waits for it; the daemon's own threads and children are about 30.
    assert int(found[1]) >= 2 * _CHILDREN_MAX + 60


class TestRoom:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(connections=4, connections_per_uid=2, connections_for_root=1)

    @pytest.mark.root
    async def test_who_says_nothing_gives_way_to_who_comes(self, house: House) -> None:
        # One person may come under many uids: the range for his own containers has 65536 of them.
        silent = [connect(house.path, uid) for uid in (100_001, 100_002, 100_003, 100_004)]
        await house.until(lambda: house.server.throttle.connection_count == 4)
        client = await house.client(ALICE)
        assert "result" in (await client.post(DISCOVER)).json
        for sock in silent:
            sock.close()

    @pytest.mark.root
    async def test_who_was_served_stays_and_nobody_has_more_places_than_his(self, house: House) -> None:
        served = [await house.client(uid) for uid in (ALICE, ALICE, BOB, BOB)]
        for client in served:
            assert "result" in (await client.post(DISCOVER)).json
        for uid in (100_001, BOB):
            assert (await (await house.client(uid)).receive()).status == 503
        for client in served:
            assert "result" in (await client.post(DISCOVER)).json


class TestPrice:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(per_second=10, burst=100)

    @pytest.mark.parametrize("body", [b"x" * 2**20, b"[" + b"0," * 5000 + b"0]" + b" " * 2**19])
    async def test_large_bodies_that_say_nothing_cost_their_size(self, house: House, body: bytes) -> None:
        client = await house.client()
        kinds = [(await client.send("POST", "/rpc", body)).json["error"]["data"]["kind"] for _ in range(5)]
        assert kinds[0] != "too_many"
        assert kinds[-1] == "too_many"

    async def test_what_cannot_be_read_costs_as_much_as_a_call(self, house: House) -> None:
        client = await house.client()
        kinds = [(await client.send("POST", "/rpc", b"{")).json["error"]["data"]["kind"] for _ in range(101)]
        assert kinds == ["parse_error"] * 100 + ["too_many"]
