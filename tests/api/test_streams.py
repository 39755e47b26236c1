"""`GET /events`, `system.events`, `system.story`: what happened, for who may know it."""

import asyncio
import json

import pytest

from ds01d.api.throttle import Limits
from ds01d.loop.watch import WAITING_MAX
from ds01d.model.chronicle import AllocationLine, EventLine
from tests.api.caller import Client, Json, connect
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, CAROL
from tests.api.mind import NOON

pytestmark = pytest.mark.root

HELD = EventLine(
    at=NOON,
    event_type="gpu.held",
    user="alice",
    source="alice",
    details={"container": "vision", "slots": ["1:0"], "gpueq": 0.28, "reason": "stopped", "until": NOON + 60},
)
STOPPED = EventLine(at=NOON + 1, event_type="container.stopped", user="alice", details={"container": "vision"})
ALERT = EventLine(at=NOON + 2, event_type="maintenance.alert", details={"text": "a ghost was met"})
BOBS = EventLine(at=NOON + 3, event_type="container.started", user="bob", details={"container": "llm"})


async def follow(house: House, uid: int | None) -> Client:
    client = await house.client(uid)
    before = len(house.mind.watchers)
    client.writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"application/x-ndjson" in head
    assert len(house.mind.watchers) == before + 1
    return client


async def lines(client: Client, count: int) -> list[Json]:
    """The next events of a stream."""
    found: list[Json] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            size = int(await client.reader.readline(), 16)
            chunk = await client.reader.readexactly(size + 2)
            found += [json.loads(line) for line in chunk.splitlines() if line]
    return found


async def test_operators_hear_all_others_what_is_theirs_and_of_slots_no_names(house: House) -> None:
    readers = {name: await follow(house, uid) for name, uid in (("alice", ALICE), ("bob", BOB), ("carol", CAROL))}

    for line in (HELD, STOPPED, ALERT, BOBS):
        house.mind.tell(line)

    assert [e["event_type"] for e in await lines(readers["carol"], 4)] == [
        "gpu.held",
        "container.stopped",
        "maintenance.alert",
        "container.started",
    ]
    assert [e["event_type"] for e in await lines(readers["alice"], 2)] == ["gpu.held", "container.stopped"]
    held, started = await lines(readers["bob"], 2)
    assert held == {
        "timestamp": "2027-01-15T08:00:00Z",
        "event_type": "gpu.held",
        "user": None,
        "source": "ds01d",
        "details": {"slots": ["1:0"], "gpueq": 0.28, "until": NOON + 60},
        "schema_version": 1,
    }
    assert started["details"] == {"container": "llm"}


async def test_lines_of_the_allocation_log_are_not_events(house: House) -> None:
    carol = await follow(house, CAROL)
    house.mind.tell(AllocationLine(at=NOON, event="HELD", user="alice", container="v", slot="0", reason=""))
    house.mind.tell(ALERT)
    assert [e["event_type"] for e in await lines(carol, 1)] == ["maintenance.alert"]


class TestQuiet:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(quiet_s=0.05)

    async def test_who_hangs_up_is_watched_for_no_longer(self, house: House) -> None:
        carol = await follow(house, CAROL)
        await carol.close()
        await house.until(lambda: not house.mind.watchers)

    async def test_a_quiet_stream_shows_that_it_lives(self, house: House) -> None:
        carol = await follow(house, CAROL)
        assert await asyncio.wait_for(carol.reader.readexactly(6), 5) == b"1\r\n\n\r\n"


class TestSlowReader:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(answer_s=0.5, watchers_per_uid=2)

    async def test_who_falls_behind_is_told_so_and_let_go(self, house: House) -> None:
        carol = await follow(house, CAROL)
        for _ in range(WAITING_MAX + 1):
            house.mind.tell(ALERT)
        received = await lines(carol, WAITING_MAX + 1)
        assert received[-1]["event_type"] == "stream.overrun"
        assert house.mind.watchers == set()

    async def test_who_does_not_read_is_cut_off(self, house: House) -> None:
        silent = connect(house.path, CAROL)
        silent.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await house.until(lambda: len(house.mind.watchers) == 1)
        big = EventLine(at=NOON, event_type="maintenance.alert", details={"text": "x" * 100_000})
        for _ in range(100):
            house.mind.tell(big)
        await house.until(lambda: house.server.throttle.connection_count == 0)
        silent.close()

    async def test_only_so_many_streams_of_one_user(self, house: House) -> None:
        for _ in range(2):
            await follow(house, BOB)
        reply = await (await house.client(BOB)).send("GET", "/events")
        assert (reply.status, reply.json["error"]["data"]["kind"]) == (429, "too_many")


class TestLateReader:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(answer_s=2)

    @pytest.mark.long
    async def test_who_reads_late_but_reads_all_is_not_cut_off_afterwards(self, house: House) -> None:
        loop = asyncio.get_running_loop()
        with connect(house.path, CAROL) as late:
            late.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            await house.until(lambda: len(house.mind.watchers) == 1)
            for _ in range(20):
                house.mind.tell(EventLine(at=NOON, event_type="maintenance.alert", details={"text": "x" * 40_000}))
            await asyncio.sleep(0.2)
            late.setblocking(False)
            received = 0
            async with asyncio.timeout(5):
                while received < 20 * 40_000:
                    got = await loop.sock_recv(late, 2**16)
                    assert got, "cut off"
                    received += len(got)

            await asyncio.sleep(2.5)
            house.mind.tell(ALERT)
            async with asyncio.timeout(5):
                heard = b""
                while b"ghost" not in heard:
                    got = await loop.sock_recv(late, 2**16)
                    assert got, "cut off"
                    heard += got


class TestPast:
    @pytest.fixture(autouse=True)
    def written(self, house: House) -> None:
        house.past.lines += [HELD, STOPPED, ALERT, BOBS]

    async def test_events_are_filtered_by_user_type_container_and_time(self, house: House) -> None:
        carol = await house.client(CAROL)
        cases: list[tuple[dict[str, object], int]] = [
            ({}, 4),
            ({"user": "alice"}, 2),
            ({"type": "gpu"}, 1),
            ({"type": "container."}, 2),
            ({"container": "vision"}, 2),
            ({"since": "1h"}, 4),
            ({"until": "1h"}, 0),
            ({"since": "1d2h30m ago"}, 4),
            ({"since": "2027-01-15T08:00:02+00:00"}, 2),
            ({"limit": 1}, 1),
        ]
        for params, count in cases:
            assert len((await carol.result("system.events", **params))["events"]) == count, params
        assert (await carol.result("system.events", summary=True))["counts"] == {
            "gpu.held": 1,
            "container.stopped": 1,
            "maintenance.alert": 1,
            "container.started": 1,
        }

    async def test_what_one_may_not_see_is_not_found_by_its_name_either(self, house: House) -> None:
        bob = await house.client(BOB)
        assert (await bob.result("system.events", user="alice"))["events"] == []
        assert (await bob.result("system.events", container="vision"))["events"] == []
        error = await bob.error("system.story", thing="vision")
        assert (error["data"]["kind"], error["data"]["exit_code"]) == ("not_found", 4)
        assert len((await bob.result("system.story", thing="1:0"))["events"]) == 1

    @pytest.mark.parametrize("when", ["yesterday", "5 minutes", "99999999999999d", "2026-13-01", "-1h", " ago"])
    async def test_a_time_that_cannot_be_read_is_refused_with_an_example(self, house: House, when: str) -> None:
        error = await (await house.client(CAROL)).error("system.events", since=when)
        assert error["data"]["kind"] == "invalid"
        assert "write 2h" in error["data"]["hint"]

    async def test_a_story_ends_with_how_it_is_now(self, house: House) -> None:
        alice = await house.client(ALICE)
        await alice.result("container.create", name="vision", image="python:3.12")
        story = await (await house.client(CAROL)).result("system.story", thing="vision")
        assert [e["event_type"] for e in story["events"]] == ["gpu.held", "container.stopped"]
        assert story["now"][0] == "vision of alice: created, not started yet"
        story = await (await house.client(CAROL)).result("system.story", thing="1:0")
        assert story["now"] == ["1:0 is held by alice"]
