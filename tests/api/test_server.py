"""The request door: what it takes, what it turns away, and that it never hangs."""

import asyncio
import contextlib
import json
import time

import pytest
import structlog.testing

from ds01d.api.throttle import Limits
from tests.api.caller import Client, Json, connect
from tests.api.conftest import House
from tests.api.fakes import ALICE

CALL = {"jsonrpc": "2.0", "id": 1, "method": "system.version", "params": {}}


async def test_a_call_is_answered_with_its_own_id(house: House) -> None:
    client = await house.client()
    reply = await client.post({"jsonrpc": "2.0", "id": "mine", "method": "system.status"})
    assert (reply.status, reply.json["id"]) == (200, "mine")
    assert [s["slot"] for s in reply.json["result"]["slots"]] == ["0", "1:0", "1:1", "1:2"]


async def test_health_is_told_to_anybody(house: House) -> None:
    reply = await (await house.client()).send("GET", "/healthz")
    assert (reply.status, reply.text) == (200, "ok\n")


async def test_quotes_backslashes_and_colons_in_a_string_are_no_keys(house: House) -> None:
    strange = '\\" : "\\\\": {,} \\\\\\'
    reply = await (await house.client()).post(CALL | {"id": strange})
    assert reply.json["id"] == strange
    assert "result" in reply.json


async def test_a_batch_is_answered_in_order_and_notifications_are_not(house: House) -> None:
    client = await house.client()
    silent = {"jsonrpc": "2.0", "method": "system.version"}
    reply = await client.post([CALL | {"id": 1}, silent, CALL | {"id": 2, "method": "no.such"}, 7])
    assert [(a["id"], "error" in a) for a in reply.json] == [(1, False), (2, True), (None, True)]
    assert (await client.post([silent, silent])).status == 204
    assert (await client.post(silent)).status == 204
    assert (await client.post(silent | {"method": "no.such"})).status == 204


HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", -32700, "truncated"),
    "not JSON": (b"hello", -32700, "malformed"),
    "half an object": (b'{"jsonrpc": "2.0", "id"', -32700, "truncated"),
    "two values": (b"1 2", -32700, "trailing"),
    "binary": (bytes(range(256)), -32700, "cannot read"),
    "bad UTF-8": (b'{"jsonrpc": "2.0", "id": 1, "method": "\xff\xfe"}', -32700, "UTF-8"),
    "a lone surrogate": (b'{"jsonrpc": "2.0", "id": 1, "method": "\\ud800"}', -32700, "cannot read"),
    "a byte order mark": (b'\xef\xbb\xbf{"jsonrpc": "2.0"}', -32700, "malformed"),
    "NaN": (b'{"jsonrpc": "2.0", "id": NaN, "method": "x"}', -32700, "malformed"),
    "a number beyond all floats": (b'{"jsonrpc": "2.0", "id": 1e999, "method": "x"}', -32700, "out of range"),
    "a number of a million digits": (b"9" * 1_000_000, -32700, "out of range"),
    "nested 33 deep": (b"[" * 33 + b"]" * 33, -32700, "deeper than 32"),
    "nested half a million deep": (b"[" * 500_000, -32700, "deeper than 32"),
    "nested objects": (b'{"a":' * 1000 + b"1" + b"}" * 1000, -32700, "deeper than 32"),
    "a hundred thousand values": (b"[" + b"1," * 100_000 + b"1]", -32700, "more than 10000 values"),
    "a key twice": (b'{"jsonrpc": "2.0", "id": 1, "method": "a", "method": "b"}', -32700, "the key method "),
    "a key twice, in a few bytes": (b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', -32700, "the key method "),
    "a key twice, deep": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "a", "params": {"x": [{"y": {"z": 1, "\\u007a": 2}}]}}',
        -32700,
        "the key params.x[0].y.z stands there twice",
    ),
    "a key twice behind backslashes": (
        rb'{"jsonrpc": "2.0", "id": "\\\" : \" \\", "method": "a", "method": "b"}',
        -32700,
        "the key method stands there twice",
    ),
    "a text": (b'"hello"', -32600, "not an object"),
    "an empty batch": (b"[]", -32600, "not 0"),
    "a batch of 21": (json.dumps([CALL] * 21).encode(), -32600, "not 21"),
    "no version": (b'{"id": 1, "method": "x"}', -32600, "jsonrpc"),
    "another version": (b'{"jsonrpc": "1.0", "id": 1, "method": "x"}', -32600, "jsonrpc"),
    "an unknown member": (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "auth": 1}', -32600, "auth"),
    "an id that is true": (b'{"jsonrpc": "2.0", "id": true, "method": "x"}', -32600, "id"),
    "an id that is an object": (b'{"jsonrpc": "2.0", "id": {}, "method": "x"}', -32600, "id"),
    "an id of 30 digits": (b'{"jsonrpc": "2.0", "id": 123456789012345678901234567890, "method": "x"}', -32600, "id"),
    "a huge id": (b'{"jsonrpc": "2.0", "id": "' + b"a" * 300 + b'", "method": "x"}', -32600, "id"),
    "a method that is a number": (b'{"jsonrpc": "2.0", "id": 1, "method": 1}', -32600, "method"),
    "no method": (b'{"jsonrpc": "2.0", "id": 1}', -32600, "method"),
    "an unknown method": (b'{"jsonrpc": "2.0", "id": 1, "method": "system.reboot"}', -32601, "system.reboot"),
    "params that are a text": (b'{"jsonrpc": "2.0", "id": 1, "method": "gpu.list", "params": "x"}', -32600, "params"),
    "params by position": (b'{"jsonrpc": "2.0", "id": 1, "method": "gpu.list", "params": [1]}', -32602, "position"),
    "an unknown parameter": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "gpu.list", "params": {"x": 1}}',
        -32602,
        "unknown field x",
    ),
    "a parameter of the wrong type": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "exec.start", "params": {"name": "v", "argv": ["a", 3]}}',
        -32602,
        "params.argv[1]: expected str, got int",
    ),
    "a float for an integer": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "container.create", "params": {"name": "v", "gpus": 1.0}}',
        -32602,
        "params.gpus: expected int, got float",
    ),
    "an integer of 30 digits": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "container.create", "params": {"name": "v", "gpus": '
        + b"9" * 30
        + b"}}",
        -32602,
        "params.gpus",
    ),
    "a name with a line break": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "container.why", "params": {"name": "a\\nb"}}',
        -32602,
        "params.name",
    ),
    "a NUL in an argument": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "exec.start", "params": {"name": "v", "argv": ["a\\u0000"]}}',
        -32602,
        "params.argv[0]",
    ),
    "a missing parameter": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "container.start", "params": {}}',
        -32602,
        "missing required field name",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_cannot_be_meant_is_refused_with_its_place_and_the_connection_goes_on(
    house: House, what: str
) -> None:
    body, code, words = HOSTILE[what]
    client = await house.client()

    began = time.monotonic()
    reply = await client.send("POST", "/rpc", body)

    assert reply.status == 200
    assert reply.json["error"]["code"] == code, reply.json
    assert words in reply.json["error"]["message"]
    assert reply.json["error"]["data"]["exit_code"] == 2
    assert time.monotonic() - began < 2
    assert (await client.post(CALL)).status == 200


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("POST", "/rpc", {"Origin": "http://evil.example"}, 403),
        ("GET", "/healthz", {"Origin": "null"}, 403),
        ("POST", "/rpc", {"Content-Type": "text/plain"}, 415),
        ("POST", "/rpc", {"Content-Encoding": "gzip"}, 415),
        ("GET", "/rpc", {}, 405),
        ("POST", "/events", {}, 405),
        ("DELETE", "/healthz", {}, 405),
        ("POST", "/", {}, 404),
        ("GET", "/../etc/passwd", {}, 404),
        ("POST", "/rpc", {"Ds01-Show": "html"}, 400),
    ],
)
async def test_requests_that_are_not_ours_get_a_status_and_words(
    house: House, method: str, target: str, headers: dict[str, str], status: int
) -> None:
    client = await house.client()
    reply = await client.send(method, target, json.dumps(CALL).encode(), **headers)
    assert reply.status == status
    assert reply.json["error"]["message"].startswith("cannot ")
    assert reply.headers["ds01-exit"] == "2"


async def test_a_request_without_a_content_type_is_refused(house: House) -> None:
    client = await house.client()
    client.writer.write(b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert (await client.receive()).status == 415


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"POST /rpc\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\n" + b"".join(b"H%d: 1\r\n" % i for i in range(500)) + b"\r\n",
    ],
)
async def test_a_broken_head_gets_a_status_and_the_end(house: House, head: bytes) -> None:
    client = await house.client()
    client.writer.write(head)
    assert 400 <= (await client.receive()).status < 500
    assert await asyncio.wait_for(client.reader.read(), 5) == b""


async def test_a_body_over_the_limit_is_refused_by_its_head_and_by_its_length(house: House) -> None:
    client = await house.client()
    client.writer.write(
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
    )
    assert (await client.receive()).status == 413

    client = await house.client()
    client.writer.write(
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(17):
        client.writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    assert (await client.receive()).status == 413


async def test_a_body_of_just_the_limit_is_read(house: House) -> None:
    client = await house.client()
    call = json.dumps(CALL).encode()
    reply = await client.send("POST", "/rpc", call + b" " * (2**20 - len(call)))
    assert "result" in reply.json


async def test_a_broken_chunk_is_refused(house: House) -> None:
    client = await house.client()
    client.writer.write(
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    client.writer.write(b"zz\r\nhello\r\n")
    assert (await client.receive()).status == 400


async def test_every_call_has_a_line_in_the_log_whatever_came_of_it(house: House) -> None:
    client = await house.client()
    with structlog.testing.capture_logs() as said:
        await client.call("system.version")
        await client.post([CALL, CALL | {"method": "nosuch"}])
        await asyncio.sleep(0)
    answered = [(line["method"], line["kind"]) for line in said if line["event"] == "rpc.answered"]
    assert answered == [("system.version", "ok"), (CALL["method"], "ok"), ("nosuch", "method_not_found")]


class TestPatience:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(head_s=0.2, body_s=0.2, answer_s=0.3)

    async def test_a_head_that_does_not_come_ends_the_connection(self, house: House) -> None:
        client = await house.client()
        client.writer.write(b"POST /rpc HT")
        assert await asyncio.wait_for(client.reader.read(), 5) == b""

    async def test_a_body_that_does_not_come_is_answered_408(self, house: House) -> None:
        client = await house.client()
        client.writer.write(
            b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        assert (await client.receive()).status == 408
        assert await asyncio.wait_for(client.reader.read(), 5) == b""

    async def test_a_body_that_drips_is_answered_408(self, house: House) -> None:
        client = await house.client()
        client.writer.write(
            b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
        )
        for _ in range(4):
            client.writer.write(b" ")
            await asyncio.sleep(0.06)
        assert (await client.receive()).status == 408

    async def test_a_caller_who_takes_no_answer_is_cut_off(self, house: House) -> None:
        call = json.dumps(CALL | {"method": "rpc.discover"}).encode()
        head = b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
            call
        )

        with connect(house.path) as silent:
            await house.until(lambda: house.server.throttle.connection_count == 1)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    silent.send(head + call)
            await house.until(lambda: not house.server.throttle.connection_count)


class TestLimits:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(per_second=10, burst=5, connections=4, connections_per_uid=3, connections_for_root=1)

    async def test_too_many_requests_a_second_are_refused_until_time_has_passed(self, house: House) -> None:
        client = await house.client()
        kinds = [_kind(await client.call("system.version")) for _ in range(7)]
        assert kinds == ["ok"] * 5 + ["too_many"] * 2

        house.clock += 0.15
        assert [_kind(await client.call("system.version")) for _ in range(2)] == ["ok", "too_many"]

    async def test_a_flood_of_batches_costs_each_call_its_price(self, house: House) -> None:
        client = await house.client()
        reply = await client.post([CALL] * 20)
        assert [_kind(a) for a in reply.json] == ["ok"] * 5 + ["too_many"] * 15

    @pytest.mark.root
    async def test_one_user_cannot_take_all_connections_and_root_gets_in(self, house: House) -> None:
        for _ in range(3):
            assert (await (await house.client(ALICE)).post(CALL)).status == 200
        turned_away = await house.client(ALICE)
        reply = await turned_away.receive()
        assert (reply.status, reply.json["error"]["data"]["kind"]) == (503, "too_many")
        assert reply.headers["ds01-exit"] == "75"

        assert (await (await house.client(2002)).post(CALL)).status == 200
        assert (await (await house.client(2002)).receive()).status == 503
        assert (await (await house.client()).send("GET", "/healthz")).status == 200

    async def test_a_connection_that_ends_makes_room(self, house: House) -> None:
        for _ in range(20):
            client = await Client.at(house.path)
            assert (await client.send("GET", "/healthz")).status == 200
            await client.close()
            await house.until(lambda: not house.server.throttle.connection_count)


class TestConcurrency:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(concurrent_per_uid=2)

    async def test_only_so_many_requests_of_one_user_run_at_once(self, house: House) -> None:
        mine = await house.client()
        house.mind.asleep = True
        made = await mine.result("container.create", name="a", image="python:3.12", user="alice", wait_s=0)
        waiters = [await house.client() for _ in range(2)]
        house.mind.patient = True
        waits = [
            asyncio.create_task(w.call("operation.wait", id=made["operation"]["id"], timeout_s=60)) for w in waiters
        ]
        await house.until(lambda: len(house.mind.waited) == 2)

        assert _kind(await mine.call("system.version")) == "too_many"
        house.mind.patient = False
        await asyncio.gather(*waits)
        assert _kind(await mine.call("system.version")) == "ok"


async def test_a_server_that_is_told_to_stop_waits_for_nobody_long(house: House) -> None:
    stream, waiting = await house.client(), await house.client()
    stream.writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await stream.reader.readuntil(b"\r\n\r\n")
    house.mind.asleep = house.mind.patient = True
    call = asyncio.create_task(waiting.call("container.create", name="a", image="python:3.12", user="alice"))
    await house.until(lambda: len(house.mind.waited) == 1)

    began = time.monotonic()
    await house.server.close(0.2)

    assert time.monotonic() - began < 2
    with pytest.raises(asyncio.IncompleteReadError):
        await call
    assert house.mind.watchers == set()
    assert [c.name for c in house.mind.state.containers] == ["a"]


async def test_a_fault_of_ours_costs_one_answer(house: House) -> None:
    client = await house.client()
    house.engine.trouble = "not what the port says"  # type: ignore[assignment]  # the bug to be contained
    error = await client.error("image.list", all=True)
    assert (error["code"], error["data"]["kind"]) == (-32603, "internal")
    assert (await client.result("system.version"))["api_level"] == 1


def _kind(answer: Json) -> str:
    return str(answer["error"]["data"]["kind"]) if "error" in answer else "ok"
