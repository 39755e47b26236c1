"""`container.*` and `operation.*` from the caller's words to the mind's event, and back."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from ds01d.core.events import CreateRequested
from ds01d.core.tx import Tx
from ds01d.model.errors import NoneFree
from ds01d.model.gpu import GpuRequest
from ds01d.model.operation import Failure
from ds01d.model.policy import ContainersPolicy, Limits
from tests.api.caller import Client
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, CAROL
from tests.api.mind import NOON

pytestmark = pytest.mark.root


@pytest.fixture
async def alice(house: House) -> Client:
    return await house.client(ALICE)


def govern(house: House, **fields: object) -> None:
    house.mind.state.policy = replace(house.mind.state.policy, **fields)


def created(house: House) -> CreateRequested:
    request = house.mind.asked[-1]
    assert isinstance(request, CreateRequested)
    return request


async def test_a_create_carries_everything_that_the_core_needs(house: House, alice: Client) -> None:
    limits = Limits(max_cpus=8, memory=2**36, memory_swap=2**36, shm_size=2**33, pids_limit=4096, max_mig_instances=3)
    limits = replace(limits, max_gpus_per_container=2)
    govern(house, groups={"msc-2026": limits}, group_of={ALICE: "msc-2026"})

    done = await alice.result(
        "container.create",
        name="vision",
        image="vision",
        gpus=2,
        gpu_type="2g.20gb",
        gpu_memory="10g",
        data="/data/imagenet",
        models="~/models",
        request_id="r-1",
    )

    request = created(house)
    spec = request.spec
    assert (request.owner.name, request.owner.uid, request.owner.home) == ("alice", ALICE, "/home/alice")
    assert (spec.image, spec.interface) == ("ds01-2001/vision-image:latest", "atomic")
    assert spec.gpus == GpuRequest(count=2, kind="2g.20gb", memory_mib=10240)
    assert [(m.source, m.target) for m in spec.mounts] == [
        ("/home/alice/workspace", "/workspace"),
        ("/data/imagenet", "/data"),
        ("/home/alice/models", "/models"),
    ]
    assert (spec.limits.cpus, spec.limits.memory, spec.limits.pids) == (8, 2**36, 4096)
    assert spec.cgroup_parent == "ds01-msc\\x2d2026-alice.slice"
    assert len(request.key) == 32
    assert done["container"]["status"] == "created"
    assert (done["container"]["slots"], done["container"]["image"]) == (["1:0", "1:1"], "vision-image")


async def test_two_containers_never_have_one_key(house: House, alice: Client) -> None:
    keys = set()
    for name in ("a", "b", "c"):
        await alice.result("container.create", name=name, image="python:3.12", cpu_only=True)
        keys.add(created(house).key)
    assert len(keys) == 3


async def test_only_the_default_workspace_is_made_where_it_is_missing(house: House, alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12", cpu_only=True)
    await alice.result("container.create", name="b", image="python:3.12", cpu_only=True, workspace="~/thesis")
    await alice.result("container.create", name="c", image="python:3.12", cpu_only=True, dry_run=True)
    assert house.workspaces.asked == [
        ("alice", "~/workspace", "workspace", True),
        ("alice", "~/thesis", "workspace", False),
        ("alice", "~/workspace", "workspace", False),
    ]


async def test_a_directory_that_cannot_be_opened_is_refused_in_its_own_words(house: House, alice: Client) -> None:
    error = await alice.error("container.create", name="a", image="python:3.12", data="/missing")
    assert (error["message"], error["data"]["kind"]) == ("cannot open /missing: no such directory", "not_found")
    assert house.mind.asked == []


async def test_data_has_to_lie_under_the_roots_where_there_are_some(house: House, alice: Client) -> None:
    govern(house, containers=ContainersPolicy(data_roots=("/data", "/scratch")))
    error = await alice.error("container.create", name="a", image="python:3.12", data="/database/x")
    assert error["message"] == "cannot give /database/x as data: it does not lie under /data or /scratch"
    await alice.result("container.create", name="a", image="python:3.12", data="/data/x")


class TestImages:
    async def test_ones_own_image_comes_before_a_local_one(self, house: House, alice: Client) -> None:
        house.engine.references.append("vision:latest")
        for word in ("vision", "vision-image"):
            await alice.result("container.create", name="a", image=word, cpu_only=True, dry_run=True)
            assert created(house).spec.image == "ds01-2001/vision-image:latest"

    async def test_without_a_word_it_is_ones_own_of_that_name_then_the_default(
        self, house: House, alice: Client
    ) -> None:
        await alice.result("container.create", name="vision", cpu_only=True, dry_run=True)
        assert created(house).spec.image == "ds01-2001/vision-image:latest"

        govern(house, containers=ContainersPolicy(default_image="pytorch/pytorch:2.5"))
        await alice.result("container.create", name="other", cpu_only=True, dry_run=True)
        assert created(house).spec.image == "pytorch/pytorch:2.5"

    async def test_without_a_word_and_a_default_it_lists_what_there_is(self, alice: Client) -> None:
        error = await alice.error("container.create", name="other")
        assert error["data"]["kind"] == "invalid"
        assert error["data"]["hint"].startswith(
            "images here: python:3.12, pytorch/pytorch:2.5, vision-image; an operator"
        )

    async def test_an_unknown_one_is_refused_with_the_nearest(self, alice: Client) -> None:
        error = await alice.error("container.create", name="a", image="pyton:3.12")
        assert (error["data"]["kind"], error["data"]["exit_code"]) == ("image_not_found", 4)
        assert error["data"]["hint"].startswith("did you mean python:3.12")

    @pytest.mark.parametrize("word", ["vision", "ds01-2001/vision-image:latest", "ds01-2001/vision-image"])
    async def test_another_users_image_is_not_there(self, house: House, word: str) -> None:
        error = await (await house.client(BOB)).error("container.create", name="a", image=word)
        assert error["data"]["kind"] == "image_not_found"
        assert "vision" not in error["data"]["hint"]

    async def test_an_operator_who_acts_for_somebody_means_that_ones_images(self, house: House) -> None:
        carol = await house.client(CAROL)
        await carol.result("container.create", name="a", image="vision", user="alice", cpu_only=True)
        assert (created(house).owner.name, created(house).actor.name) == ("alice", "carol")
        assert created(house).spec.image == "ds01-2001/vision-image:latest"

    async def test_an_engine_that_cannot_say_is_no_missing_image(self, house: House, alice: Client) -> None:
        house.engine.trouble = Failure(kind="engine", message="cannot list images: the engine does not answer")
        assert (await alice.error("container.create", name="a", image="x"))["data"]["kind"] == "engine"


async def test_the_hosts_network_is_for_operators(house: House, alice: Client) -> None:
    refused = await alice.error("container.create", name="a", image="python:3.12", network_host=True)
    assert refused["data"]["kind"] == "denied"
    carol = await house.client(CAROL)
    await carol.result("container.create", name="a", image="python:3.12", network_host=True, cpu_only=True)
    assert created(house).spec.network_host


async def test_a_user_who_is_not_there_is_named(house: House) -> None:
    error = await (await house.client()).error("container.create", name="a", image="python:3.12", user="dora")
    assert (error["message"], error["data"]["kind"]) == ("cannot find a user called dora", "not_found")


async def test_the_cores_refusals_reach_the_caller_with_code_and_hint(alice: Client) -> None:
    error = await alice.error("container.create", name="a", image="python:3.12", gpus=5)
    assert (error["code"], error["data"]["kind"], error["data"]["exit_code"]) == (-31006, "container_limit", 1)
    assert error["data"]["hint"]


async def test_a_failure_on_the_way_is_the_same_refusal(house: House, alice: Client) -> None:
    house.mind.failure = NoneFree("cannot give 1 GPU now: 0 in use by bob", hint="try again").failure
    error = await alice.error("container.create", name="a", image="python:3.12")
    assert (error["code"], error["message"]) == (-31009, "cannot give 1 GPU now: 0 in use by bob")
    assert error["data"]["exit_code"] == 75


async def test_a_life_from_create_to_remove(alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    started = await alice.result("container.start", name="a")
    assert (started["container"]["status"], started["container"]["slots"]) == ("running", ["1:0"])
    stopped = await alice.result("container.stop", name="a", grace_s=0)
    assert (stopped["container"]["status"], stopped["freed"]) == ("stopped", [])
    assert stopped["container"]["until"] is not None
    again = await alice.result("container.start", name="a")
    assert again["container"]["slots"] == ["1:0"]
    parked = await alice.result("container.stop", name="a", release=True)
    assert (parked["container"]["status"], parked["freed"]) == ("parked", ["1:0"])
    removed = await alice.result("container.remove", name="a")
    assert (removed["container"], removed["operation"]["outcome"]) == (None, "removed")
    assert (await alice.result("container.list"))["containers"] == []


async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(house: House, alice: Client) -> None:
    before = house.mind.state.revision
    would = await alice.result("container.create", name="a", image="python:3.12", dry_run=True)
    assert (would["would"], would["container"]) == (["would create a on GPU 1:0"], None)
    assert house.mind.state.revision == before


async def test_the_same_request_id_is_the_same_request(alice: Client) -> None:
    first = await alice.result("container.create", name="a", image="python:3.12", request_id="mine")
    again = await alice.result("container.create", name="a", image="python:3.12", request_id="mine")
    assert first["operation"]["id"] == again["operation"]["id"]
    assert len((await alice.result("container.list"))["containers"]) == 1


async def test_a_removal_that_is_asked_for_again_has_been_done(alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    first = await alice.result("container.remove", name="a", request_id="mine")
    again = await alice.result("container.remove", name="a", request_id="mine")

    assert (again["name"], again["operation"]["id"]) == ("a", first["operation"]["id"])


async def test_an_unfinished_request_is_pending_with_its_operation_and_how_to_wait(house: House, alice: Client) -> None:
    house.mind.asleep = True
    error = await alice.error("container.create", name="a", image="python:3.12", wait_s=3)

    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("pending", 75)
    operation = error["data"]["operation"]
    assert error["message"] == "cannot say yet what came of it: the creation of a goes on (creating)"
    waits = f"programs wait with operation.wait {operation}"
    assert error["data"]["hint"] == f"`container-why a` says how far it is; {waits}"
    assert sum(house.mind.waited) == pytest.approx(3, abs=0.1)
    waited = await alice.result("operation.wait", id=operation, timeout_s=1)
    assert (waited["state"], waited["stage"]) == ("pending", "creating")
    assert [o["id"] for o in (await alice.result("operation.list"))["operations"]] == [operation]


async def test_whoever_waits_for_a_gpu_that_nobody_can_see_hears_so_within_seconds(house: House, alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    house.mind.asleep = True
    sight = house.mind.state.sight
    house.mind.state.sight = replace(sight, blind="the NVIDIA driver is not loaded")
    error = await alice.error("container.stop", name="a", release=True)

    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("pending", 75)
    assert "the GPUs cannot be seen: the NVIDIA driver is not loaded" in error["message"]
    assert "ds01ctl status" in error["data"]["hint"]
    assert sum(house.mind.waited) < 7

    house.mind.state.sight = replace(sight, silent_since=NOON, silent_why="nobody listens")
    error = await alice.error("container.remove", name="a")
    assert "the removal of a goes on (the engine does not answer: nobody listens)" in error["message"]
    assert "systemctl status docker" in error["data"]["hint"]
    assert sum(house.mind.waited) < 14


async def test_who_says_how_long_he_waits_is_kept_waiting_whatever_stands_in_the_way(
    house: House, alice: Client
) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    house.mind.asleep = True
    house.mind.state.sight = replace(house.mind.state.sight, silent_since=NOON, silent_why="nobody listens")
    await alice.error("container.stop", name="a", release=True, wait_s=30)
    assert sum(house.mind.waited) == pytest.approx(30, abs=0.1)


async def test_a_create_is_worth_trying_again_when_the_engine_is_back(house: House, alice: Client) -> None:
    house.engine.trouble = Failure(kind="engine_down", message="cannot list the images: nobody listens")
    error = await alice.error("container.create", name="a", image="python:3.12")
    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("engine_down", 75)


@pytest.mark.parametrize("method", ["container.create", "image.list"])
async def test_an_engine_that_is_known_to_be_silent_is_not_asked_for_images(
    house: House, alice: Client, method: str
) -> None:
    sight = house.mind.state.sight
    house.mind.state.sight = replace(sight, silent_since=NOON - 60, silent_why="connection refused")
    error = await alice.error(method, **({"name": "a", "image": "python:3.12"} if "create" in method else {}))
    assert (error["data"]["kind"], error["data"]["exit_code"]) == ("engine_down", 75)
    assert error["message"] == "cannot list the images: the engine does not answer: connection refused"
    assert house.engine.asked == []


@pytest.mark.long
async def test_an_engine_that_falls_silent_over_the_images_is_waited_for_no_longer(house: House, alice: Client) -> None:
    house.engine.hangs = asyncio.Event()
    asked = asyncio.create_task(alice.error("container.create", name="a", image="python:3.12"))
    await house.until(lambda: bool(house.engine.asked))
    sight = house.mind.state.sight
    house.mind.state.sight = replace(sight, silent_since=NOON - 60, silent_why="no word from it within 5 s")
    error = await asyncio.wait_for(asked, 5)
    assert error["data"]["kind"] == "engine_down"


async def test_who_does_not_want_to_wait_is_given_the_operation_at_once(house: House, alice: Client) -> None:
    house.mind.asleep = True
    answer = await alice.result("container.create", name="a", image="python:3.12", wait_s=0)
    assert (answer["operation"]["state"], answer["container"]["status"]) == ("pending", "creating")
    assert house.mind.waited == []


async def test_nobody_waits_on_behalf_of_who_hung_up(house: House, alice: Client) -> None:
    house.mind.asleep = True
    params = {"name": "a", "image": "python:3.12"}
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "container.create", "params": params}).encode()
    head = "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    alice.writer.write(f"{head}{len(call)}\r\n\r\n".encode() + call)
    house.mind.patient = True
    await house.until(lambda: len(house.mind.waited) == 1)
    await alice.close()
    await house.until(lambda: house.server.throttle.connection_count == 0)
    house.mind.patient = False

    bob = await house.client(BOB)
    await bob.result("container.list")
    assert len(house.mind.waited) == 1
    assert house.mind.state.containers.one("name", (ALICE, "a")) is not None


async def test_the_nearest_names_are_told(alice: Client) -> None:
    await alice.result("container.create", name="vision", image="python:3.12", cpu_only=True)
    error = await alice.error("container.start", name="vison")
    assert error["message"] == "cannot find a container called vison: you have vision"


async def test_why_tells_reasons_deadlines_and_ways_on(alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    why = await alice.result("container.why", name="a")
    assert why["reasons"][0] == "created, not started yet"
    assert [d["what"] for d in why["deadlines"]] == ["its GPU goes back, unless it is started before"]
    assert why["next_steps"] == ["container-run a", "container-stop a --release"]


async def test_whoever_leaves_a_container_in_which_something_runs_is_told_that_it_goes_on(alice: Client) -> None:
    await alice.result("container.create", name="left", image="python:3.12")
    await alice.result("container.start", name="left")

    left = {"jsonrpc": "2.0", "id": 1, "method": "container.left", "params": {"name": "left"}}
    reply = await alice.post(left, **{"Ds01-Show": "text"})

    assert reply.text.startswith("left goes on: something still runs in it\n")


async def test_a_gpu_that_is_gone_is_not_called_free(house: House, alice: Client) -> None:
    made = await alice.result("container.create", name="a", image="python:3.12", gpu_type="full")
    state = house.mind.state
    (slot,) = [s for s in state.slots if s.name in made["container"]["slots"]]
    tx = Tx(state, NOON)
    tx.put(state.slots, slot.id, replace(slot, lost=True))
    tx.commit()

    stop = {"jsonrpc": "2.0", "id": 1, "method": "container.stop", "params": {"name": "a", "release": True}}
    reply = await alice.post(stop, **{"Ds01-Show": "text"})
    assert reply.text == "a is stopped and parked; GPU 0 is gone\n"


async def test_who_runs_a_command_in_a_stopped_container_is_told_how_to_start_it(alice: Client) -> None:
    await alice.result("container.create", name="a", image="python:3.12")
    error = await alice.error("exec.start", name="a", argv=["nvidia-smi"])
    assert error["message"] == "cannot run a command in a: it is stopped"
    assert "container-start a" in error["data"]["hint"]
