"""Every role with every method; and the table itself."""

import pytest

from ds01d.api.methods import METHODS
from tests.api.caller import Client
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, CAROL

pytestmark = pytest.mark.root

ROLES = ("alice", "bob", "carol", "root")
OK = "ok"
#: Method → parameters, and what comes of it for its owner, a stranger, an operator, and root.
#: Alice has `vision`, which runs and has a shell, and `atelier`, which is stopped and held.
TABLE: dict[str, tuple[dict[str, object], tuple[str, str, str, str]]] = {
    "container.create": ({"name": "new", "image": "python:3.12", "cpu_only": True, "user": "alice"},
                         (OK, "denied", OK, OK)),
    "container.start": ({"name": "atelier", "user": "alice"}, (OK, "denied", OK, OK)),
    "container.stop": ({"name": "vision", "user": "alice"}, (OK, "denied", OK, OK)),
    "container.remove": ({"name": "atelier", "user": "alice"}, (OK, "denied", OK, OK)),
    "container.release": ({"name": "atelier", "user": "alice"}, ("denied", "denied", OK, OK)),
    "container.thaw": ({"name": "vision", "user": "alice"}, ("denied", "denied", "wrong_phase", "wrong_phase")),
    "container.list": ({"all": True}, ("denied", "denied", OK, OK)),
    "container.left": ({"name": "vision", "user": "alice"}, (OK, "denied", OK, OK)),
    "container.why": ({"name": "vision", "user": "alice"}, (OK, "denied", OK, OK)),
    "exec.start": ({"name": "vision", "user": "alice"}, (OK, "denied", OK, OK)),
    "exec.resize": ({"exec": "EXEC", "rows": 50, "cols": 132}, (OK, "not_found", OK, OK)),
    "exec.result": ({"exec": "EXEC"}, (OK, "not_found", OK, OK)),
    "operation.get": ({"id": "OPERATION"}, (OK, "not_found", OK, OK)),
    "operation.wait": ({"id": "OPERATION"}, (OK, "not_found", OK, OK)),
    "operation.list": ({"user": "alice"}, (OK, "denied", OK, OK)),
    "gpu.list": ({}, (OK, OK, OK, OK)),
    "allocation.list": ({"all": True}, ("denied", "denied", OK, OK)),
    "image.list": ({"user": "alice"}, (OK, "denied", OK, OK)),
    "system.status": ({}, (OK, OK, OK, OK)),
    "system.version": ({}, (OK, OK, OK, OK)),
    "system.events": ({}, (OK, OK, OK, OK)),
    "system.story": ({"thing": "vision"}, (OK, "not_found", OK, OK)),
    "rpc.discover": ({}, (OK, OK, OK, OK)),
}  # fmt: skip
UIDS = {"alice": ALICE, "bob": BOB, "carol": CAROL, "root": None}


def test_the_table_speaks_of_every_method() -> None:
    assert set(TABLE) == {m.name for m in METHODS}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", TABLE)
async def test_every_role_gets_what_it_may_from_every_method(house: House, method: str, role: str) -> None:
    alice = await house.client(ALICE)
    operation = await _alices_containers(alice)
    params, outcomes = TABLE[method]
    shell = await alice.result("exec.start", name="vision")
    known = {"EXEC": shell["exec"], "OPERATION": operation}
    client = await house.client(UIDS[role])

    answer = await client.call(method, **{k: known.get(str(v), v) for k, v in params.items()})

    kind = answer["error"]["data"]["kind"] if "error" in answer else OK
    assert kind == outcomes[ROLES.index(role)], answer


@pytest.mark.parametrize(
    "method",
    ["container.start", "container.stop", "container.remove", "container.left", "container.why", "exec.start"],
)
async def test_other_peoples_containers_are_not_to_be_found_and_root_has_to_say_whose(
    house: House, method: str
) -> None:
    await _alices_containers(await house.client(ALICE))
    stranger, root = await house.client(BOB), await house.client()

    error = await stranger.error(method, name="vision")
    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("not_found", 4)
    assert error["message"] == "cannot find a container called vision: you have none"
    assert error["data"]["hint"] == "make one with `container-create NAME IMAGE`"
    assert (await root.error(method, name="vision"))["data"]["kind"] == "invalid"


async def test_a_stranger_sees_slot_user_and_until_when_and_nothing_else(house: House) -> None:
    await _alices_containers(await house.client(ALICE))
    stranger = await house.client(BOB)

    shown = [await stranger.post(call(m)) for m in ("gpu.list", "system.status", "system.events", "container.list")]

    slots = {s["slot"]: s for s in shown[0].json["result"]["slots"]}
    held = [s for s in slots.values() if s["user"] == "alice"]
    assert sorted(s["state"] for s in held) == ["held", "in use"]
    assert [s["until"] is not None for s in held if s["state"] == "held"] == [True]
    for reply in shown:
        assert not {word for word in ("vision", "atelier", "python") if word in reply.text}, reply.text


async def test_its_owner_and_operators_see_which_container_has_a_slot(house: House) -> None:
    await _alices_containers(await house.client(ALICE))
    for uid in (ALICE, CAROL, None):
        slots = (await (await house.client(uid)).result("gpu.list"))["slots"]
        assert {s["container"] for s in slots} == {None, "vision", "atelier"}


async def test_an_operator_need_not_say_whose_container_is_released_unless_two_have_the_name(house: House) -> None:
    await _alices_containers(await house.client(ALICE))
    root = await house.client()
    assert (await root.result("container.release", name="atelier"))["freed"] == ["1:1"]

    await (await house.client(BOB)).result("container.create", name="atelier", image="python:3.12")
    error = await root.error("container.release", name="atelier")
    assert error["message"] == "cannot tell which atelier is meant: alice, bob have one"


async def test_lists_show_root_everybodys(house: House) -> None:
    await _alices_containers(await house.client(ALICE))
    root = await house.client()
    assert [c["name"] for c in (await root.result("container.list"))["containers"]] == ["vision", "atelier"]
    assert len((await root.result("allocation.list"))["allocations"]) == 2
    assert (await root.result("container.list", user="bob"))["containers"] == []
    assert len((await root.result("image.list"))["images"]) == 3


async def test_a_user_sees_his_own_images_and_those_nobody_built(house: House) -> None:
    images = (await (await house.client(BOB)).result("image.list"))["images"]
    assert [i["name"] for i in images] == ["python:3.12", "pytorch/pytorch:2.5"]
    images = (await (await house.client(ALICE)).result("image.list"))["images"]
    assert [i["name"] for i in images if i["own"]] == ["vision-image"]


def call(method: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method}


async def _alices_containers(alice: Client) -> str:
    """One that runs and one that is held; gives the id of an operation of hers."""
    await alice.result("container.create", name="vision", image="python:3.12")
    started = await alice.result("container.start", name="vision")
    assert started["container"]["status"] == "running"
    await alice.result("container.create", name="atelier", image="python:3.12")
    return str(started["operation"]["id"])
