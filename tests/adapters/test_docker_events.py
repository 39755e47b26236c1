"""The event stream and the listings: what is told, when, and what a broken stream leaves to the next one."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.docker_events import EngineEvents
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.engine_listing import EngineListing, origin_of
from ds01d.core.events import EngineAnswered, EngineHinted, EngineSilent, Event, Relisted
from ds01d.model.facts import CgroupStatus, EngineStatus
from ds01d.model.ids import EngineId
from tests.adapters.fake_engine import FULL_ID, FakeEngine, inspected

OTHER_ID = "cd" * 32


class Stream:
    """The engine's `/events`: what it is told to send, until it is told to end."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def reply(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while (line := await self.lines.get()) is not None:
            await response.write(line)
        return response

    def send(self, action: str, at: float) -> None:
        event = {"Action": action, "Actor": {"ID": FULL_ID}, "time": int(at), "timeNano": int(at * 1e9)}
        self.lines.put_nowait(json.dumps(event).encode() + b"\n")

    def end(self) -> None:
        self.lines.put_nowait(None)


class Heard:
    """What was posted, to be waited for."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            return await self.events.get()


class Setup:
    def __init__(self, fake: FakeEngine, tmp: Path) -> None:
        self.fake, self.stream, self.heard = fake, Stream(), Heard()
        self.pid_file = tmp / "docker.pid"
        self.pid_file.write_text(str(os.getpid()))
        self.engine = DockerEngine(fake.socket)
        self.reconnected = 0
        fake.replies["GET events"] = self.stream.reply
        self.events = EngineEvents(
            self.engine,
            post=self.heard.events.put_nowait,
            reconnected=self._reconnected,
            process=EngineProcess(self.pid_file),
            quiet_s=0.05,
        )

    def _reconnected(self) -> None:
        self.reconnected += 1

    def sinces(self) -> list[str | None]:
        pairs = zip(self.fake.asked, self.fake.queries, strict=True)
        return [query.get("since") for asked, query in pairs if asked == "GET events"]


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    async with FakeEngine(tmp_path / "engine.sock").serving() as fake:
        setup = Setup(fake, tmp_path)
        following = asyncio.create_task(setup.events.run())
        yield setup
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        setup.stream.end()
        await setup.engine.close()


async def test_an_engine_that_answers_is_told_and_listed_once_its_stream_is_open(setup: Setup) -> None:
    answered = await setup.heard.next()
    assert isinstance(answered, EngineAnswered)
    assert (answered.engine.name, answered.engine.cdi, answered.restarted) == ("ENGINE:1", True, False)
    assert answered.engine.since > 0
    assert setup.reconnected == 1
    assert setup.fake.asked.index("GET events") < setup.fake.asked.index("GET info")


async def test_an_event_is_a_hint_with_the_engines_own_time(setup: Setup) -> None:
    await setup.heard.next()
    setup.stream.send("die", 1000.25)
    assert await setup.heard.next() == EngineHinted(engine_id=EngineId(FULL_ID), action="die", at=1000.25)


async def test_after_a_drop_the_next_stream_begins_before_the_last_event(setup: Setup) -> None:
    await setup.heard.next()
    setup.stream.send("start", 1000.25)
    await setup.heard.next()
    setup.stream.end()
    assert isinstance(await setup.heard.next(), EngineSilent)
    again = await setup.heard.next()
    assert isinstance(again, EngineAnswered)
    assert not again.restarted
    assert setup.sinces() == [None, "998.250000000"]
    assert setup.reconnected == 2


async def test_another_process_is_a_restart_and_so_is_one_that_nobody_knows(setup: Setup) -> None:
    await setup.heard.next()
    for pid in ("1", "none"):
        setup.pid_file.write_text(pid)
        setup.stream.end()
        await setup.heard.next()
        answered = await setup.heard.next()
        assert isinstance(answered, EngineAnswered)
        assert answered.restarted


async def test_a_quiet_engine_that_still_answers_is_left_alone(setup: Setup) -> None:
    await setup.heard.next()
    await setup.fake.asked_for("GET _ping", 3)
    assert setup.heard.events.empty()


async def test_a_quiet_engine_that_answers_no_more_is_told_once(setup: Setup) -> None:
    await setup.heard.next()
    setup.fake.replies["GET _ping"] = setup.fake.refuses("no", 500)
    setup.fake.replies["GET events"] = setup.fake.refuses("no", 500)
    assert isinstance(await setup.heard.next(), EngineSilent)
    await setup.fake.asked_for("GET events", 3)
    assert setup.heard.events.empty()


async def test_why_an_engine_is_silent_is_told_as_it_is_now(setup: Setup) -> None:
    await setup.heard.next()
    setup.fake.replies["GET events"] = setup.fake.hangs_up
    setup.stream.end()
    assert await setup.heard.next() == EngineSilent(reason="it closed its event stream")
    assert await setup.heard.next() == EngineSilent(reason="the connection to it broke")
    setup.fake.socket.unlink()
    assert await setup.heard.next() == EngineSilent(reason="no such file or directory")


async def test_a_line_that_is_no_event_is_passed_over(setup: Setup) -> None:
    await setup.heard.next()
    setup.stream.lines.put_nowait(b"{broken\n")
    setup.stream.send("oom", 7.0)
    hint = await setup.heard.next()
    assert isinstance(hint, EngineHinted)
    assert hint.action == "oom"


# --- listings


OURS = {"Id": FULL_ID, "Names": ["/train._.1001"], "State": "created", "Labels": {"ds01.id": "l-1", "ds01.key": "k1"}}
THEIRS = {"Id": OTHER_ID, "Names": ["/nb"], "State": "exited", "Labels": {"com.docker.compose.project": "p"}}


def foreign_inspect() -> dict[str, object]:
    return inspected() | {
        "Id": OTHER_ID,
        "Config": {"Labels": {}},
        "HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
    }


class Lister:
    def __init__(self, fake: FakeEngine, root: Path) -> None:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("1 0 0:1 / /cg rw - cgroup cgroup rw\n")
        (root / "cg").mkdir()
        self.fake, self.heard = fake, Heard()
        self.engine = DockerEngine(fake.socket)
        self.revision = 3
        fake.replies["GET containers/json"] = fake.says([OURS, THEIRS])
        fake.replies[f"GET containers/{FULL_ID}/json"] = fake.says(inspected())
        fake.replies[f"GET containers/{OTHER_ID}/json"] = fake.says(foreign_inspect())
        self.listing = EngineListing(
            self.engine,
            cgroups=Cgroups(root),
            permissions=tuple,
            post=self.heard.events.put_nowait,
            revision=lambda: self.revision,
            interval_s=0.05,
        )


@pytest.fixture
async def lister(tmp_path: Path) -> AsyncIterator[Lister]:
    async with FakeEngine(tmp_path / "engine.sock").serving() as fake:
        lister = Lister(fake, tmp_path / "root")
        yield lister
        await lister.engine.close()


async def test_a_listing_tells_ours_from_others_and_what_others_name(lister: Lister) -> None:
    containers, foreign = await lister.listing.read()
    assert [(one.engine_id, one.status, one.cgroup) for one in containers] == [
        (FULL_ID, EngineStatus.CREATED, CgroupStatus.EMPTY),
        (OTHER_ID, EngineStatus.STOPPED, CgroupStatus.EMPTY),
    ]
    assert [(one.engine_id, one.origin, one.gpus, one.user) for one in foreign] == [
        (OTHER_ID, "compose", ("all",), None)
    ]


async def test_each_container_is_inspected_once(lister: Lister) -> None:
    await lister.listing.read()
    await lister.listing.read()
    assert lister.fake.asked.count(f"GET containers/{FULL_ID}/json") == 1


async def test_an_inspect_that_fails_is_tried_again_at_the_next_listing(lister: Lister) -> None:
    answer = lister.fake.replies.pop(f"GET containers/{OTHER_ID}/json")
    containers, foreign = await lister.listing.read()
    assert (len(containers), foreign) == (2, ())
    assert containers[1].cgroup is CgroupStatus.UNKNOWN
    lister.fake.replies[f"GET containers/{OTHER_ID}/json"] = answer
    assert len((await lister.listing.read()).foreign) == 1


async def test_our_labels_on_somebody_elses_gpus_hide_nothing(lister: Lister) -> None:
    forged = inspected() | {"HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["ds01/gpu=k2"]}]}}
    lister.fake.replies[f"GET containers/{FULL_ID}/json"] = lister.fake.says(forged)
    assert (await lister.listing.read()).foreign[0].gpus == ("ds01/gpu=k2",)


async def test_it_lists_at_its_interval_without_being_asked(lister: Lister) -> None:
    running = asyncio.create_task(lister.listing.run())
    assert isinstance(await lister.heard.next(), Relisted)
    running.cancel()


async def test_the_revision_is_that_of_the_moment_before_the_engine_was_asked(lister: Lister) -> None:
    async def later(request: web.Request) -> web.StreamResponse:
        lister.revision = 4
        return await lister.fake.says([OURS])(request)

    lister.fake.replies["GET containers/json"] = later
    running = asyncio.create_task(lister.listing.run())
    lister.listing.ask()
    relisted = await lister.heard.next()
    assert isinstance(relisted, Relisted)
    assert (relisted.revision, relisted.permissions) == (3, ())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "label", "origin"),
    [
        ("a", "devcontainer.local_folder", "devcontainer"),
        ("vsc-a", "com.docker.compose.project", "compose"),
        ("vsc-a", "other", "devcontainer"),
        ("a", "aime.mlc", "aime"),
        ("a", "other", "raw-docker"),
    ],
)
def test_the_surest_sign_names_the_origin(name: str, label: str, origin: str) -> None:
    assert origin_of(name, {label: "x"}) == origin
