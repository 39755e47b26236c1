"""What people see, word for word, and that nobody can write onto another one's terminal."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from msgspec.structs import replace

from ds01d.api.render.page import Page, clean, size, table, terminal, width
from ds01d.core.state import SlotUse
from ds01d.core.tx import Tx
from ds01d.model.chronicle import EventLine
from ds01d.model.facts import GpuProcess
from ds01d.model.gpu import slot_id
from ds01d.model.ids import GpuUuid, Uid
from tests.api.caller import Client
from tests.api.conftest import House
from tests.api.fakes import ALICE, BOB, CAROL
from tests.api.mind import NOON

HERE = Path(__file__).parent / "golden"
Golden = Callable[[Path, str], None]


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    """People read times on the clock of the host."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


class Transcript:
    """What was asked, and what was shown."""

    def __init__(self) -> None:
        self.text = ""

    async def ask(self, who: str, client: Client, method: str, /, **params: object) -> None:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await client.post(call, Ds01_Show="text")
        asked = " ".join(f"{k}={v}" for k, v in params.items())
        said = unquote(reply.headers.get("ds01-message", ""))
        beside = "".join(f"! {line}\n" for line in said.splitlines())
        code = "" if reply.headers["ds01-exit"] == "0" else f"exit {reply.headers['ds01-exit']}\n"
        self.text += f"{who}$ {method} {asked}".rstrip() + f"\n{beside}{reply.text}{code}\n"
        assert all(c.isprintable() or c == "\n" for c in reply.text)


@pytest.mark.root
async def test_a_users_day(house: House, golden: Golden) -> None:
    alice, bob = await house.client(ALICE), await house.client(BOB)
    seen = Transcript()
    vision: dict[str, object] = {"name": "vision", "image": "python:3.12"}
    steps: list[tuple[str, dict[str, object]]] = [
        ("container.list", {}),
        ("container.create", vision | {"dry_run": True}),
        ("container.create", vision),
        ("container.create", vision),
        ("container.create", {"name": "notes", "image": "vision", "cpu_only": True}),
        ("container.start", {"name": "vision"}),
        ("container.list", {}),
        ("container.list", {"wide": True}),
        ("container.why", {"name": "vision"}),
        ("container.remove", {"name": "vision"}),
        ("container.stop", {"name": "vision"}),
        ("container.why", {"name": "vision"}),
        ("container.stop", {"name": "vision", "release": True}),
        ("container.list", {}),
        ("container.why", {"name": "vision"}),
        ("container.why", {"name": "notes"}),
        ("container.start", {"name": "notes"}),
        ("container.stop", {"name": "notes"}),
        ("container.remove", {"name": "vision", "dry_run": True}),
        ("container.remove", {"name": "vision"}),
        ("container.start", {"name": "vison"}),
        ("container.create", {"name": "a b", "image": "python:3.12"}),
        ("container.create", {"name": "x", "image": "pyton"}),
        ("container.create", {"name": "x"}),
        ("container.create", {"name": "x", "image": "python:3.12", "gpus": "two"}),
        ("exec.start", {"name": "notes"}),
        ("image.list", {}),
        ("operation.list", {}),
        ("system.version", {}),
    ]
    for method, params in steps:
        await seen.ask("alice", alice, method, **params)
    await seen.ask("bob", bob, "container.list")
    await seen.ask("bob", bob, "container.list", all=True)
    golden(HERE / "a-users-day.txt", seen.text)


@pytest.mark.root
async def test_an_operator_without_allocations_is_told_how_to_see_everybodys(house: House) -> None:
    alice, bob, carol = await house.client(ALICE), await house.client(BOB), await house.client(CAROL)
    seen = Transcript()
    await seen.ask("carol", carol, "allocation.list")
    assert "no allocations\n" in seen.text
    await alice.result("container.create", name="vision", image="python:3.12")

    seen = Transcript()
    await seen.ask("carol", carol, "allocation.list")
    assert "none of yours; everybody's: ds01ctl allocations --all\n" in seen.text
    for client, params in ((bob, {}), (carol, {"user": "bob"})):
        seen = Transcript()
        await seen.ask("who", client, "allocation.list", **params)
        assert "no allocations\n" in seen.text


@pytest.mark.root
async def test_the_machine_in_all_its_states(house: House, golden: Golden) -> None:
    alice, carol = await house.client(ALICE), await house.client(CAROL)
    await alice.result("container.create", name="vision", image="python:3.12")
    await alice.result("container.start", name="vision")
    await alice.result("container.create", name="thesis", image="python:3.12")
    _trouble(house)
    house.past.lines += [
        EventLine(at=NOON, event_type="gpu.held", user="alice", details={"container": "thesis", "slots": ["1:1"]}),
        EventLine(at=NOON + 1, event_type="maintenance.alert", details={"text": "line\nbreak \x1b[31mred"}),
    ]
    seen = Transcript()

    bob = await house.client(BOB)
    await seen.ask("bob", bob, "system.status")
    await seen.ask("bob", bob, "gpu.list")
    for method, params in (
        ("system.status", {}),
        ("allocation.list", {"all": True}),
        ("container.list", {"all": True}),
        ("system.events", {}),
        ("system.events", {"summary": True}),
        ("system.story", {"thing": "thesis"}),
        ("container.release", {"name": "thesis", "user": "alice"}),
        ("container.thaw", {"name": "vision", "user": "alice"}),
    ):
        await seen.ask("carol", carol, method, **params)
    golden(HERE / "the-machine.txt", seen.text)


def _trouble(house: House) -> None:
    """A foreign process, a drained slot, a frozen record, a silent engine, and a disk that does not take the state."""
    state = house.mind.state
    whole, cut = GpuUuid("GPU-0000"), GpuUuid("GPU-1111")
    foreign = GpuProcess(
        gpu=whole,
        gi=None,
        pid=4711,
        start_time=1,
        uid=Uid(2003),
        user="carol",
        container=None,
        used_mib=2048,
        command="python secret-plan.py",
    )
    slots = dict(state.sight.slots) | {slot_id(whole): SlotUse(processes=(foreign,), used_mib=2048)}
    tx = Tx(state, NOON)
    tx.see(replace(state.sight, slots=slots, silent_since=NOON - 600, silent_why="connection refused", driver="570.86"))
    last = state.slots.get(slot_id(cut, "2g.20gb", 4))
    assert last is not None
    tx.put(state.slots, last.id, replace(last, drained="left memory behind for 10 min"))
    vision = state.containers.one("name", (ALICE, "vision"))
    assert vision is not None
    tx.change(vision, frozen=True, why="three faults in a row")
    tx.commit()
    house.mind.unsaved_since = NOON - 30


async def test_programs_are_given_values(house: House) -> None:
    client = await house.client()
    call = {"jsonrpc": "2.0", "id": 1, "method": "system.version"}
    reply = await client.post(call, Ds01_Show="json")
    assert (reply.json["api_level"], reply.headers["ds01-exit"]) == (1, "0")

    refused = await client.post(call | {"params": {"x": 1}}, Ds01_Show="json")
    assert refused.json == {
        "error": {
            "code": -32602,
            "kind": "invalid_params",
            "message": "cannot take params: object contains unknown field x",
            "hint": "it takes no parameters",
            "exit_code": 2,
            "operation": None,
        }
    }
    assert refused.headers["ds01-exit"] == "2"
    assert (await client.post([call], Ds01_Show="json")).status == 400


async def test_every_answer_names_the_version(house: House) -> None:
    client = await house.client()
    for headers in ({}, {"Ds01_Show": "text"}, {"Ds01_Show": "json"}, {"Ds01_Show": "html"}):
        reply = await client.post({"jsonrpc": "2.0", "id": 1, "method": "system.version"}, **headers)
        assert reply.headers["ds01-version"]


def test_a_narrow_terminal_cuts_the_widest_column_and_a_pipe_nothing() -> None:
    rows = [["vision", "x" * 60, "1:0"], ["a", "short", "0"]]
    heads = ["NAME", "IMAGE", "GPU"]
    narrow = table(Page(now=0, me="alice", columns=40), heads, rows, {})
    assert max(width(line) for line in narrow.splitlines()) == 40
    assert "x…  1:0" in narrow
    assert "x" * 60 in table(Page(now=0, me="alice"), heads, rows, {})


def test_columns_line_up_by_what_is_seen() -> None:
    shown = table(Page(now=0, me="a"), ["NAME", "GPU"], [["日本", "0"], ["e\u0301te\u0301", "1"], ["abcd", "2"]], {})
    assert {width(line[: line.rindex(" ")]) for line in shown.splitlines()} == {5}


def test_colour_is_only_paint() -> None:
    rows = [["running"], ["parked"]]
    plain = table(Page(now=0, me="a"), ["STATUS"], rows, {"running": "green"})
    painted = table(Page(now=0, me="a", colour=True), ["STATUS"], rows, {"running": "green"})
    assert painted == plain.replace("running", "\x1b[32mrunning\x1b[0m")


@pytest.mark.parametrize(
    "evil", ["\x1b]0;title\x07", "a\rb", "a\nb", "\x9b31m", "\u202eevil", "\u2028", "\0", "\ue000"]
)
def test_nothing_that_a_terminal_obeys_gets_through(evil: str) -> None:
    assert clean(evil).isprintable()


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (NOON + 12 * 60, "09:12 (in 12 min)"),
        (NOON + 20, "09:00 (in 20 s)"),
        (NOON + 3 * 3600, "12:00 (in 3 h)"),
        (NOON + 30 * 3600, "2027-01-16 15:00 (in 30 h)"),
        (NOON + 5 * 86400, "2027-01-20 09:00 (in 5 days)"),
        (NOON - 90, "08:58 (2 min ago)"),
    ],
)
def test_times_are_the_hosts_and_say_how_far_away_they_are(at: float, words: str) -> None:
    assert Page(now=NOON, me="a").moment(at) == words


@pytest.mark.parametrize(
    ("age", "words"), [(0, "0s"), (59, "59s"), (60, "1m"), (2700, "45m"), (7200, "2h"), (3 * 86400, "3d"), (-5, "0s")]
)
def test_an_age_has_one_unit(age: float, words: str) -> None:
    assert Page(now=NOON, me="a").age(NOON - age) == words


@pytest.mark.parametrize(
    ("header", "facts"),
    [
        ("columns=120; colour=1", (120, True)),
        ("columns=80;colour=0", (80, False)),
        ("colour=1", (None, True)),
        ("columns=99999999", (None, False)),
        ("", (None, False)),
        ("columns=-1; rubbish; colour=yes", (None, False)),
    ],
)
def test_what_cannot_be_read_of_a_terminal_is_no_terminal(header: str, facts: tuple[int | None, bool]) -> None:
    assert terminal(header) == facts


def test_sizes_are_short() -> None:
    assert [size(m) for m in (81920, 20480, 512, None)] == ["80G", "20G", "0.5G", "-"]
