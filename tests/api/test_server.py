"""The request door: what it takes, what it turns away, and that it never hangs."""

from tests.api.conftest import House


async def test_a_call_is_answered_with_its_own_id(house: House) -> None:
    client = await house.client()
    reply = await client.post({"jsonrpc": "2.0", "id": "mine", "method": "system.status"})
    assert (reply.status, reply.json["id"]) == (200, "mine")
    assert [s["slot"] for s in reply.json["result"]["slots"]] == ["0", "1:0", "1:1", "1:2"]


async def test_health_is_told_to_anybody(house: House) -> None:
    reply = await (await house.client()).send("GET", "/healthz")
    assert (reply.status, reply.text) == (200, "ok\n")
