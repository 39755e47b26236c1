"""Each order gets exactly one answer, in time, and only a certain no is called one."""

import asyncio
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.docker_process import EngineProcess
from ds01d.adapters.engine_look import Ghosts, Looker
from ds01d.adapters.hands import LAG_S, Hands
from ds01d.adapters.procfs import Procfs
from ds01d.core.effects import (
    AnyOrder,
    CreateContainer,
    KillContainer,
    KillGhost,
    LookAt,
    Permit,
    RemoveContainer,
    StartContainer,
    StopContainer,
    Withdraw,
)
from ds01d.core.events import DIRECTORY_GONE, DIRECTORY_MOVED, Answer, Done, Failed, Looked, Uncertain
from ds01d.model.container import ContainerSpec, Mount
from ds01d.model.facts import CgroupStatus, EngineStatus, Look
from ds01d.model.ids import ContainerId, EngineId, EngineName, GpuUuid, Key, OrderId, SlotId, Uid
from ds01d.model.permission import MountProof, Permission, SlotDevice
from ds01d.model.probe import Blind, GpuSeen, Picture, ProcessSeen
from tests.adapters.fake_engine import FULL_ID, NEVER, FakeEngine, inspected

ID = EngineId(FULL_ID)
C, ORDER = ContainerId("l-1"), OrderId("l-9")
SLOT = SlotId("GPU-a")
DEVICE = SlotDevice(name=SLOT, uuid=GpuUuid("GPU-a"), minor=3, gpu_index=0)


class Disk:
    """Permission files that are written when the test says so."""

    def __init__(self) -> None:
        self.thawed = threading.Event()
        self.thawed.set()
        self.error: OSError | None = None
        self.permitted: list[Permission] = []
        self.withdrawn: list[str] = []

    def permit(self, permission: Permission) -> None:
        self._write()
        self.permitted.append(permission)

    def withdraw(self, key: str) -> None:
        self._write()
        self.withdrawn.append(key)

    def _write(self) -> None:
        self.thawed.wait(10)
        if self.error is not None:
            raise self.error


class Cards:
    """A driver that shows one card, or nothing."""

    def __init__(self) -> None:
        self.shows: Picture | Blind = Blind(reason="no driver")

    async def poll(self) -> Picture | Blind:
        return self.shows


class Directories:
    """Every directory is where it was, until the test says otherwise."""

    def __init__(self) -> None:
        self.now: dict[str, int | None] = {}
        self.answers = asyncio.Event()
        self.answers.set()

    async def device(self, mount: Mount) -> int | None:
        await self.answers.wait()
        return self.now.get(mount.source, mount.device)


class Bench:
    """Hands on a fake engine, a disk, a cgroup tree and cards that the test holds."""

    def __init__(self, fake: FakeEngine, root: Path) -> None:
        self.fake = fake
        self.disk, self.cards, self.ghosts, self.root = Disk(), Cards(), Ghosts(), root
        self.directories = Directories()
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("1 0 0:1 / /cg rw - cgroup cgroup rw\n")
        (root / "cg").mkdir()
        self.engine = DockerEngine(fake.socket)
        self.now = 1000.0
        #: Not there, until a test writes it.
        self.pid_file = root / "engine.pid"
        procfs = Procfs()
        looker = Looker(
            engine=self.engine,
            process=EngineProcess(self.pid_file),
            probe=self.cards,
            cgroups=Cgroups(root),
            procfs=procfs,
            ghosts=self.ghosts,
        )
        self.hands = Hands(
            engine=self.engine,
            permissions=self.disk,
            directories=self.directories,
            looker=looker,
            ghosts=self.ghosts,
            device_map=lambda: {SLOT: DEVICE},
            clock=lambda: self.now,
        )
        self.late: list[Answer] = []
        self.later = asyncio.Event()

    async def do(self, order: AnyOrder) -> Answer:
        return await self.hands.perform(order, self._late)

    def _late(self, answer: Answer) -> None:
        self.late.append(answer)
        self.later.set()

    async def heard_late(self) -> None:
        async with asyncio.timeout(5):
            await self.later.wait()

    def lives_in(self, *pids: int) -> None:
        scope = self.root / f"cg/system.slice/docker-{FULL_ID}.scope"
        scope.mkdir(parents=True, exist_ok=True)
        (scope / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    async def look(
        self, *slots: SlotId, engine: str | None = None, by_name: bool = False, timeout_s: float = 5
    ) -> Look:
        order = LookAt(
            container=C,
            order=ORDER,
            timeout_s=timeout_s,
            engine=None if engine is None else EngineName(engine),
            engine_id=None if by_name else ID,
            name="train._.1001",
            key=Key("k1"),
            cgroup=None,
            cgroup_parent="",
            slots=slots,
        )
        answer = await self.do(order)
        assert isinstance(answer, Looked)
        return answer.look


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FakeEngine(tmp_path / "engine.sock").serving() as fake:
        bench = Bench(fake, tmp_path / "root")
        yield bench
        bench.disk.thawed.set()
        await bench.hands.close()
        await bench.engine.close()


def start(timeout_s: float = 5) -> StartContainer:
    return StartContainer(container=C, order=ORDER, timeout_s=timeout_s, engine_id=ID)


def create() -> CreateContainer:
    return CreateContainer(
        container=C,
        order=ORDER,
        timeout_s=5,
        key=Key("k1"),
        name="train._.1001",
        user="alice",
        uid=Uid(1001),
        gid=1001,
        spec=ContainerSpec(image="bb:latest", gpus=None),
        created_at=0.0,
    )


def permit(timeout_s: float = 5, *slots: SlotId) -> Permit:
    return Permit(
        container=C,
        order=ORDER,
        timeout_s=timeout_s,
        key=Key("k1"),
        engine_id=ID,
        generation="l.1",
        uid=Uid(1001),
        gid=1001,
        slots=slots or (SLOT,),
        mounts=(Mount(source="/home/alice/workspace", target="/workspace", device=5, inode=6),),
    )


def withdraw(timeout_s: float = 5) -> Withdraw:
    return Withdraw(container=C, order=ORDER, timeout_s=timeout_s, key=Key("k1"))


START = f"POST containers/{FULL_ID}/start"
INSPECT = f"GET containers/{FULL_ID}/json"


# --- the engine


@pytest.mark.parametrize("status", [204, 304])
async def test_a_start_of_one_that_runs_is_a_yes_like_any_other(bench: Bench, status: int) -> None:
    bench.fake.replies[START] = bench.fake.says("", status)
    assert await bench.do(start()) == Done(container=C, order=ORDER)


async def test_an_overdue_call_is_uncertain_and_goes_on(bench: Bench) -> None:
    released, finished = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await released.wait()
        finished.set()
        return await bench.fake.says("", 204)(request)

    bench.fake.replies[START] = slow
    answer = await bench.do(start(timeout_s=0.05))
    assert isinstance(answer, Uncertain)
    assert not answer.returned
    released.set()
    async with asyncio.timeout(5):
        await finished.wait()
    assert bench.late == []


async def test_a_connection_that_breaks_in_a_start_is_over_and_names_a_likely_cause(bench: Bench) -> None:
    bench.fake.replies[START] = bench.fake.hangs_up
    answer = await bench.do(start())
    assert isinstance(answer, Uncertain)
    assert answer.returned
    assert "inotify" in answer.message


async def test_an_engine_that_cannot_be_reached_did_nothing_for_certain(tmp_path: Path) -> None:
    bench = Bench(FakeEngine(tmp_path / "nobody.sock"), tmp_path / "root")
    answer = await bench.do(start())
    assert isinstance(answer, Failed)
    assert not answer.again
    assert "cannot reach the engine" in answer.message
    await bench.hands.close()
    await bench.engine.close()


UNRESOLVABLE = "CDI device injection failed: unresolvable CDI devices ds01/gpu=k1"


async def test_a_refusal_right_after_our_own_write_may_be_tried_again_and_no_other(bench: Bench) -> None:
    bench.fake.replies[START] = bench.fake.refuses(UNRESOLVABLE)
    bench.now += LAG_S
    assert await _tried_again(bench) is False
    await bench.do(permit())
    assert await _tried_again(bench) is True
    bench.fake.replies[START] = bench.fake.refuses("no space left on device")
    assert await _tried_again(bench) is False


async def test_a_refusal_right_after_a_restart_may_be_tried_again_for_the_last_daemon_may_have_written(
    bench: Bench,
) -> None:
    bench.fake.replies[START] = bench.fake.refuses(UNRESOLVABLE)
    bench.now += LAG_S - 0.1
    assert await _tried_again(bench) is True
    bench.now += 0.1
    assert await _tried_again(bench) is False


async def _tried_again(bench: Bench) -> bool:
    answer = await bench.do(start())
    assert isinstance(answer, Failed)
    return answer.again


async def test_a_start_that_the_guard_refused_for_a_directory_says_so(bench: Bench) -> None:
    words = "ds01: cannot start: /workspace is not the directory that was checked when the container was created"
    bench.fake.replies[START] = bench.fake.refuses(f"OCI runtime create failed: {words}; put it back")
    answer = await bench.do(start())
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.again) == (DIRECTORY_MOVED, False)
    assert answer.message == "/workspace was replaced by another directory"


async def test_a_start_whose_directory_is_gone_says_so_and_its_permission_is_not_renewed_for_it(bench: Bench) -> None:
    words = 'invalid mount config for type "bind": bind source path does not exist: /home/alice/workspace'
    bench.fake.replies[START] = bench.fake.refuses(words, 400)
    answer = await bench.do(start())
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.message) == (DIRECTORY_GONE, "/home/alice/workspace is gone")


async def test_what_a_dead_start_left_behind_is_tried_again_with_the_way_out(bench: Bench) -> None:
    bench.fake.replies[START] = bench.fake.refuses(f"container with id exists: {FULL_ID}")
    answer = await bench.do(start())
    assert isinstance(answer, Failed)
    assert answer.again
    assert "systemctl restart containerd" in answer.hint


async def test_a_conflict_is_our_own_container_only_by_label_and_key_and_before_its_first_run(bench: Bench) -> None:
    bench.fake.replies["POST containers/create"] = bench.fake.refuses("Conflict.", 409)
    by_name = "GET containers/train._.1001/json"
    bench.fake.replies[by_name] = bench.fake.says(inspected())
    assert await bench.do(create()) == Done(container=C, order=ORDER, engine_id=ID)
    bench.fake.replies[by_name] = bench.fake.says(inspected(StartedAt="2026-01-01T00:00:00Z", Status="exited"))
    ran = await bench.do(create())
    assert isinstance(ran, Failed)
    assert ran.kind == "name_taken"
    bench.fake.replies[by_name] = bench.fake.says(inspected() | {"Config": {"Labels": {"ds01.id": "l-1"}}})
    other = await bench.do(create())
    assert isinstance(other, Failed)
    assert FULL_ID[:12] in other.message


async def test_another_users_images_are_not_told(bench: Bench) -> None:
    bench.fake.replies["POST containers/create"] = bench.fake.refuses("No such image: bb:latest", 404)
    tags = ["ds01-1002/bc:latest", "ds01-1001/bd:latest", "bbb:latest"]
    bench.fake.replies["GET images/json"] = bench.fake.says([{"RepoTags": tags}])
    answer = await bench.do(create())
    assert isinstance(answer, Failed)
    assert answer.kind == "image_not_found"
    assert answer.hint == "the nearest names are bbb, bd"


async def test_removing_what_is_gone_and_ending_what_has_ended_are_yeses(bench: Bench) -> None:
    bench.fake.replies[f"POST containers/{FULL_ID}/kill"] = bench.fake.refuses("is not running", 409)
    bench.fake.replies[f"POST containers/{FULL_ID}/stop"] = bench.fake.says("", 304)
    for order in (
        RemoveContainer(container=C, order=ORDER, timeout_s=5, engine=None, engine_id=ID),
        KillContainer(container=C, order=ORDER, timeout_s=5, engine_id=ID),
        StopContainer(container=C, order=ORDER, timeout_s=5, engine_id=ID, grace_s=7.4),
    ):
        assert await bench.do(order) == Done(container=C, order=ORDER)
    assert bench.fake.queries[-1] == {"t": "7"}
    assert {"v": "1"} in bench.fake.queries


async def test_a_404_is_a_removal_only_from_the_engine_that_made_it(bench: Bench) -> None:
    bench.fake.replies["GET info"] = bench.fake.says({"ID": "engine-2"})
    order = RemoveContainer(container=C, order=ORDER, timeout_s=5, engine=EngineName("engine-1"), engine_id=ID)

    answer = await bench.do(order)

    assert isinstance(answer, Failed)
    assert "another engine answers (engine-2)" in answer.message


# --- permissions


async def test_a_write_that_returns_after_its_order_was_called_off_is_told_all_the_same(bench: Bench) -> None:
    """A daemon that was stopped for a while finds every time-out over at once, the runner's own among them."""
    bench.disk.thawed.clear()
    order = asyncio.create_task(bench.do(permit()))
    await asyncio.sleep(0.05)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)

    bench.disk.thawed.set()

    async with asyncio.timeout(5):
        await bench.later.wait()
    assert bench.late == [Done(container=C, order=ORDER)]


async def test_a_write_that_had_returned_when_its_order_was_called_off_is_told_all_the_same(bench: Bench) -> None:
    order = asyncio.create_task(bench.do(permit()))
    while not bench.disk.permitted:  # noqa: ASYNC110  # written by another thread, before the loop hears of it
        await asyncio.sleep(0)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)

    async with asyncio.timeout(5):
        await bench.later.wait()
    assert bench.late == [Done(container=C, order=ORDER)]


async def test_a_permission_says_which_devices_the_slots_have_now(bench: Bench) -> None:
    assert await bench.do(permit()) == Done(container=C, order=ORDER)
    assert bench.disk.permitted == [
        Permission(
            key=Key("k1"),
            container_id=ID,
            generation="l.1",
            uid=1001,
            gid=1001,
            slots=(DEVICE,),
            mounts=(MountProof(dev=5, inode=6, target="/workspace"),),
        )
    ]


def mounts(bench: Bench) -> tuple[MountProof, ...]:
    return bench.disk.permitted[-1].mounts


async def test_a_permission_names_the_device_that_a_directory_has_today(bench: Bench) -> None:
    bench.directories.now["/home/alice/workspace"] = 77  # its file system was mounted anew
    await bench.do(permit())
    assert mounts(bench) == (MountProof(dev=77, inode=6, target="/workspace"),)


async def test_what_became_of_another_directory_is_left_to_the_guard(bench: Bench) -> None:
    bench.directories.now["/home/alice/workspace"] = None
    await bench.do(permit())
    assert mounts(bench) == (MountProof(dev=5, inode=6, target="/workspace"),)


@pytest.mark.long
async def test_a_directory_that_does_not_answer_holds_its_permission_up_for_two_seconds(bench: Bench) -> None:
    bench.directories.answers.clear()
    assert await bench.do(permit()) == Done(container=C, order=ORDER)
    assert mounts(bench) == (MountProof(dev=5, inode=6, target="/workspace"),)


async def test_a_permission_that_is_called_off_while_its_directories_are_looked_at_was_not_written(
    bench: Bench,
) -> None:
    bench.directories.answers.clear()
    order = asyncio.create_task(bench.do(permit()))
    await asyncio.sleep(0.05)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)

    async with asyncio.timeout(5):
        await bench.later.wait()
    (told,) = bench.late
    assert isinstance(told, Failed)
    assert bench.disk.permitted == []


async def test_a_slot_that_the_driver_does_not_show_is_not_given(bench: Bench) -> None:
    answer = await bench.do(permit(5, SLOT, SlotId("GPU-b")))
    assert isinstance(answer, Failed)
    assert answer.message == "cannot give GPU-b: the driver does not show it now"
    assert bench.disk.permitted == []


@pytest.mark.parametrize("order", [permit(0.05), withdraw(0.05)])
async def test_a_write_that_hangs_is_uncertain_and_its_return_is_told_once(
    bench: Bench, order: Permit | Withdraw
) -> None:
    bench.disk.thawed.clear()
    answer = await bench.do(order)
    assert isinstance(answer, Uncertain)
    assert not answer.returned
    assert bench.late == []
    bench.disk.thawed.set()
    await bench.heard_late()
    assert bench.late == [Done(container=C, order=ORDER)]


async def test_a_late_failure_is_told_too(bench: Bench) -> None:
    bench.disk.thawed.clear()
    bench.disk.error = OSError(28, "No space left on device")
    await bench.do(withdraw(0.05))
    bench.disk.thawed.set()
    await bench.heard_late()
    (late,) = bench.late
    assert isinstance(late, Failed)
    assert (late.kind, late.message) == ("disk", "cannot remove the permission: No space left on device")


async def test_writes_that_hang_hold_no_other_up(bench: Bench) -> None:
    bench.disk.thawed.clear()
    hanging = [asyncio.create_task(bench.do(withdraw(60))) for _ in range(50)]
    await asyncio.sleep(0)
    bench.fake.replies[START] = bench.fake.says("", 204)
    bench.fake.replies[INSPECT] = bench.fake.says(inspected())
    assert await bench.do(start()) == Done(container=C, order=ORDER)
    assert (await bench.look()).status is EngineStatus.CREATED
    bench.disk.thawed.set()
    await asyncio.gather(*hanging)


# --- looks


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def test_who_outlives_an_inspect_that_says_not_running_is_a_ghost_and_is_killed(
    bench: Bench, process: "subprocess.Popen[bytes]"
) -> None:
    bench.lives_in(process.pid)
    bench.fake.replies[INSPECT] = bench.fake.says(inspected())
    look = await bench.look()
    assert (look.ghost, look.cgroup) == (True, CgroupStatus.OCCUPIED)
    kill = KillGhost(container=C, order=ORDER, timeout_s=5, look=ORDER)
    assert await bench.do(kill) == Done(container=C, order=ORDER)
    assert process.wait(5) == -9
    assert isinstance(await bench.do(kill), Failed)


async def test_who_is_gone_after_the_inspect_was_a_start_that_failed_and_no_ghost(
    bench: Bench, process: "subprocess.Popen[bytes]"
) -> None:
    bench.lives_in(process.pid)

    async def answer(request: web.Request) -> web.StreamResponse:
        process.kill()
        process.wait()
        bench.lives_in()
        return await bench.fake.says(inspected())(request)

    bench.fake.replies[INSPECT] = answer
    look = await bench.look()
    assert (look.ghost, look.cgroup) == (False, CgroupStatus.EMPTY)


async def test_who_comes_after_the_inspect_is_seen_and_is_no_ghost(
    bench: Bench, process: "subprocess.Popen[bytes]"
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        bench.lives_in(process.pid)
        return await bench.fake.says(inspected())(request)

    bench.fake.replies[INSPECT] = answer
    look = await bench.look()
    assert (look.ghost, look.cgroup) == (False, CgroupStatus.OCCUPIED)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_look_holds_on_to_no_more_than_the_newest_one(bench: Bench, process: "subprocess.Popen[bytes]") -> None:
    bench.lives_in(process.pid)
    bench.fake.replies[INSPECT] = bench.fake.says(inspected())
    before = open_descriptors()
    for _ in range(5):
        assert (await bench.look()).ghost
    assert open_descriptors() <= before + 3


async def test_a_404_is_absent_only_from_the_engine_that_made_it(bench: Bench) -> None:
    assert (await bench.look(engine="ENGINE:1")).status is EngineStatus.ABSENT
    strange = await bench.look(engine="ENGINE:2")
    assert strange.status is EngineStatus.STRANGE
    assert strange.trouble is not None
    assert "ENGINE:1" in strange.trouble


async def test_an_engine_that_is_replaced_during_the_look_proves_nothing(bench: Bench) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        bench.fake.name = "ENGINE:2"
        return await bench.fake.refuses("No such container", 404)(request)

    bench.fake.replies[INSPECT] = answer
    assert (await bench.look(engine="ENGINE:1")).status is EngineStatus.STRANGE


async def test_looks_that_begin_together_ask_once_who_the_engine_is(bench: Bench) -> None:
    bench.pid_file.write_text(str(os.getpid()))
    looks = await asyncio.gather(*(bench.look(engine="ENGINE:1") for _ in range(20)))
    assert {look.status for look in looks} == {EngineStatus.ABSENT}
    assert bench.fake.asked.count("GET info") == 1


async def test_who_gives_up_on_the_question_who_the_engine_is_does_not_end_it_for_others(bench: Bench) -> None:
    bench.pid_file.write_text(str(os.getpid()))
    told, info = asyncio.Event(), bench.fake.replies["GET info"]
    bench.fake.replies["GET info"] = bench.fake.waits_for(told, info)
    patient = asyncio.create_task(bench.look(engine="ENGINE:1"))
    await bench.fake.asked_for("GET info", 1)
    assert (await bench.look(engine="ENGINE:1", timeout_s=0.05)).status is EngineStatus.SILENT
    told.set()
    assert (await patient).status is EngineStatus.ABSENT


async def test_without_a_pid_file_every_look_asks_who_the_engine_is(bench: Bench) -> None:
    await asyncio.gather(bench.look(engine="ENGINE:1"), bench.look(engine="ENGINE:1"))
    assert bench.fake.asked.count("GET info") >= 4


async def test_an_inspect_that_hangs_or_fails_is_silence(bench: Bench) -> None:
    bench.fake.replies[INSPECT] = bench.fake.refuses("internal", 500)
    assert (await bench.look()).status is EngineStatus.SILENT
    bench.fake.replies[INSPECT] = bench.fake.waits_for(asyncio.Event(), bench.fake.says({}))
    look = await bench.look(timeout_s=0.1)
    assert (look.status, look.cgroup) == (EngineStatus.SILENT, CgroupStatus.UNKNOWN)


async def test_a_container_that_was_never_made_is_absent_and_has_no_cgroup(bench: Bench) -> None:
    look = await bench.look(by_name=True)
    assert (look.status, look.cgroup, look.engine_id) == (EngineStatus.ABSENT, CgroupStatus.EMPTY, None)


async def test_a_container_of_the_name_that_is_somebody_elses_is_none_of_ours(bench: Bench) -> None:
    theirs = inspected() | {"Config": {"Labels": {"ds01.id": "l-1", "ds01.key": "k2"}}}
    bench.fake.replies["GET containers/train._.1001/json"] = bench.fake.says(theirs)
    bench.fake.replies[INSPECT] = bench.fake.says(theirs)
    look = await bench.look(by_name=True)
    assert (look.status, look.engine_id) == (EngineStatus.ABSENT, None)


async def test_an_init_that_is_another_process_by_now_does_not_live(bench: Bench) -> None:
    running = {"Status": "running", "Running": True, "Pid": os.getpid(), "StartedAt": "2026-01-01T00:00:00Z"}
    bench.fake.replies[INSPECT] = bench.fake.says(inspected(**running))
    look = await bench.look()
    assert (look.status, look.init_alive) == (EngineStatus.RUNNING, False)
    restarting = {"Status": "restarting", "Restarting": True, "Pid": 0, "FinishedAt": NEVER}
    bench.fake.replies[INSPECT] = bench.fake.says(inspected(**restarting))
    assert (await bench.look()).init_alive is None


async def test_a_driver_that_does_not_answer_leaves_the_slots_unknown(bench: Bench) -> None:
    bench.fake.replies[INSPECT] = bench.fake.says(inspected())
    look = await bench.look(SLOT)
    assert look.slots is None
    assert look.trouble is not None
    assert "no driver" in look.trouble


async def test_what_the_driver_shows_of_the_slots_comes_with_the_look(bench: Bench) -> None:
    bench.fake.replies[INSPECT] = bench.fake.says(inspected())
    card = GpuSeen(
        uuid="GPU-a",
        index=0,
        minor=3,
        name="card",
        memory_total_mib=1000,
        memory_used_mib=7,
        memory_v2=True,
        processes=(ProcessSeen(pid=12),),
    )
    bench.cards.shows = Picture(at=0, revision=1, driver="1", gpus=(card,))
    look = await bench.look(SLOT, SlotId("GPU-b"))
    assert look.slots is not None
    here, gone = look.slots
    assert (here.pids, here.used_mib, here.net_of_reserved, here.lost) == ((12,), 7, True, False)
    assert gone.lost
