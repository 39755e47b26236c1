"""The probe with its real child, real pynvml and the mock driver library: what the daemon sees, and when not."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ds01d.adapters.nvml.child import FULL_READ_POLLS
from ds01d.adapters.nvml.probe import Probe
from ds01d.model.probe import Blind, GpuSeen, Picture, ProcessSeen
from tests.testbed.nvml.cards import GpuLayout, Layout, SliceLayout
from tests.testbed.nvml.library import environment
from tests.testbed.nvml.mock import Mock

H100 = "NVIDIA H100 80GB HBM3"


def whole(n: int) -> GpuLayout:
    return {"uuid": f"GPU-{n:08d}", "name": H100, "minor": n, "memory_mib": 81559, "mig": None}


def part(card: int, gi: int, profile: str, start: int, size: int) -> SliceLayout:
    uuid = f"MIG-{card:04d}-{gi:04d}"
    mib = {"1g.10gb": 9728, "2g.20gb": 19968, "3g.40gb": 40192}[profile]
    return {"profile": profile, "gi": gi, "ci": 0, "start": start, "size": size, "uuid": uuid, "memory_mib": mib}


def cut(n: int, *slices: SliceLayout) -> GpuLayout:
    return {**whole(n), "mig": {"slices": list(slices)}}


SLICES = (part(2, 3, "2g.20gb", 0, 2), part(2, 4, "1g.10gb", 2, 1), part(2, 2, "3g.40gb", 4, 4))
SERVER: Layout = {"gpus": [whole(0), whole(1), cut(2, *SLICES)]}


@pytest.fixture
def mock(tmp_path: Path) -> Mock:
    return Mock.create(tmp_path / "state", SERVER)


@asynccontextmanager
async def running(mock: Mock, *, deadline_s: float = 5.0) -> AsyncIterator[Probe]:
    probe = Probe(env=environment(mock.path), deadline_s=deadline_s)
    await probe.start()
    try:
        yield probe
    finally:
        await probe.close()


@pytest.fixture
async def probe(mock: Mock) -> AsyncIterator[Probe]:
    async with running(mock) as probe:
        yield probe


async def look(probe: Probe) -> Picture:
    answer = await probe.poll()
    assert isinstance(answer, Picture), answer
    return answer


async def blind(probe: Probe) -> str:
    answer = await probe.poll()
    assert isinstance(answer, Blind), answer
    return answer.reason


async def gpu(probe: Probe, index: int) -> GpuSeen:
    return (await look(probe)).gpus[index]


# --- what is seen -----------------------------------------------------------------------------------------------------


async def test_every_card_is_seen_with_who_it_is(probe: Probe) -> None:
    picture = await look(probe)

    assert [(g.uuid, g.index, g.minor, g.name, g.memory_total_mib, g.mig) for g in picture.gpus] == [
        ("GPU-00000000", 0, 0, H100, 81559, False),
        ("GPU-00000001", 1, 1, H100, 81559, False),
        ("GPU-00000002", 2, 2, H100, 81559, True),
    ]
    assert picture.driver == "570.86.15"
    assert picture.unidentified == ()


async def test_slices_carry_profile_place_and_weight_from_the_cards_own_table(probe: Probe) -> None:
    slices = (await gpu(probe, 2)).slices

    assert [(s.profile, s.start, s.size, s.compute, s.compute_of) for s in slices] == [
        ("2g.20gb", 0, 2, 2, 7),
        ("1g.10gb", 2, 1, 1, 7),
        ("3g.40gb", 4, 4, 3, 7),
    ]
    assert [(s.uuid, s.gi, s.ci, s.memory_total_mib) for s in slices] == [
        ("MIG-0002-0003", 3, 0, 19968),
        ("MIG-0002-0004", 4, 0, 9728),
        ("MIG-0002-0002", 2, 0, 40192),
    ]


async def test_an_a30_slice_is_weighed_in_quarters(tmp_path: Path) -> None:
    spec: SliceLayout = {
        "profile": "2g.12gb", "gi": 1, "ci": 0, "start": 0, "size": 2, "uuid": "MIG-a", "memory_mib": 11968,
    }  # fmt: skip
    card: GpuLayout = {
        "uuid": "GPU-a30", "name": "NVIDIA A30", "minor": 0, "memory_mib": 24576, "mig": {"slices": [spec]},
    }  # fmt: skip
    mock = Mock.create(tmp_path / "state", {"gpus": [card]})

    async with running(mock) as probe:
        seen = (await gpu(probe, 0)).slices[0]

    assert (seen.compute, seen.compute_of) == (2, 4)


async def test_a_card_in_mig_mode_without_an_instance_has_no_slices_and_no_trouble(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).mig = True

    seen = await gpu(probe, 0)

    assert (seen.mig, seen.slices, seen.trouble) == (True, (), None)


async def test_a_profile_nobody_can_read_is_that_slices_trouble_and_no_weight(mock: Mock, probe: Probe) -> None:
    mock.gpu(2).rename_profile("2g.20gb", "MIG bananas")

    seen = await gpu(probe, 2)

    assert [s.profile for s in seen.slices] == ["1g.10gb", "3g.40gb"]
    assert [(u.uuid, u.trouble) for u in seen.unread] == [
        ("MIG-0002-0003", "cannot read the MIG profile `MIG bananas`")
    ]
    assert seen.trouble is None


async def test_a_second_compute_instance_in_one_gpu_instance_is_no_second_slot(mock: Mock, probe: Probe) -> None:
    mock.gpu(2).add_slice({**part(2, 3, "2g.20gb", 0, 2), "ci": 1, "uuid": "MIG-second"})

    seen = await gpu(probe, 2)

    assert [s.gi for s in seen.slices] == [3, 4, 2]
    assert [u.uuid for u in seen.unread] == ["MIG-second"]


async def test_processes_are_listed_with_their_memory_and_instance(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).add_process(os.getpid(), 300)
    mock.gpu(2).add_process(os.getpid(), 500, gi=4)

    picture = await look(probe)

    assert picture.gpus[0].processes == (ProcessSeen(pid=os.getpid(), used_mib=300),)
    assert picture.gpus[1].processes == ()
    assert picture.gpus[2].processes == (ProcessSeen(pid=os.getpid(), used_mib=500, gi=4, ci=0),)
    assert [s.memory_used_mib for s in picture.gpus[2].slices] == [0, 500, 0]


async def test_memory_the_driver_does_not_tell_is_unknown_and_not_zero(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).add_process(os.getpid(), None)

    assert (await gpu(probe, 0)).processes == (ProcessSeen(pid=os.getpid(), used_mib=None),)


async def test_a_process_in_two_lists_is_one_process(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).add_process(os.getpid(), 100, kind="compute")
    mock.gpu(0).add_process(os.getpid(), 100, kind="graphics")
    mock.gpu(0).add_process(os.getppid(), 50, kind="mps")

    assert {(p.pid, p.used_mib) for p in (await gpu(probe, 0)).processes or ()} == {
        (os.getpid(), 100),
        (os.getppid(), 50),
    }


async def test_a_process_list_that_fails_is_unknown_and_not_empty(mock: Mock, probe: Probe) -> None:
    mock.permitted = False

    picture = await look(probe)

    assert picture.gpus[0].processes == ()
    assert picture.gpus[2].processes is None


async def test_rows_with_an_impossible_pid_make_the_list_unknown(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).add_process(2**31, 1, lingers=True)

    assert (await gpu(probe, 0)).processes is None


async def test_a_process_that_ended_is_gone_unless_the_driver_is_sick(mock: Mock, probe: Probe) -> None:
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    mock.gpu(0).add_process(sleeper.pid, 70)
    mock.gpu(1).add_process(sleeper.pid, 70, lingers=True)
    assert (await gpu(probe, 0)).memory_used_mib == 70

    sleeper.kill()
    await sleeper.wait()

    picture = await look(probe)
    assert (picture.gpus[0].processes, picture.gpus[0].memory_used_mib) == ((), 0)
    assert picture.gpus[1].processes == (ProcessSeen(pid=sleeper.pid, used_mib=70),)


async def test_the_drivers_own_memory_is_left_out_where_the_driver_can_tell(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).reserved_mib = 600
    mock.gpu(0).held_mib = 20

    seen = await gpu(probe, 0)

    assert (seen.memory_used_mib, seen.memory_v2) == (20, True)


async def test_an_older_driver_counts_its_own_memory_as_used(mock: Mock, probe: Probe) -> None:
    mock.memory_v2 = False
    mock.gpu(0).reserved_mib = 600

    seen = await gpu(probe, 0)

    assert (seen.memory_used_mib, seen.memory_v2) == (600, False)


async def test_utilisation_is_unknown_on_a_card_that_is_cut(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).utilisation_pct = 83
    mock.gpu(2).utilisation_pct = 83

    picture = await look(probe)

    assert [g.utilisation_pct for g in picture.gpus] == [83, 0, None]


async def test_cards_joined_by_nvlink_name_each_other(tmp_path: Path) -> None:
    mock = Mock.create(tmp_path / "state", {"gpus": [whole(0), whole(1), whole(2), whole(3)]})
    mock.join_nvlink(0, 1)
    mock.join_nvlink(1, 3)

    async with running(mock) as probe:
        assert [g.nvlink for g in (await look(probe)).gpus] == [(1,), (0, 3), (), (1,)]


# --- change under a running probe -------------------------------------------------------------------------------------


async def test_a_card_that_appears_is_seen_and_raises_the_revision(mock: Mock, probe: Probe) -> None:
    before = await look(probe)

    mock.add_gpu(whole(3))
    after = await look(probe)

    assert [g.uuid for g in after.gpus[3:]] == ["GPU-00000003"]
    assert after.revision == before.revision + 1


async def test_the_revision_stays_while_only_figures_change(mock: Mock, probe: Probe) -> None:
    before = await look(probe)

    mock.gpu(0).add_process(os.getpid(), 1000)
    mock.gpu(0).utilisation_pct = 100
    mock.gpu(1).lost = True

    assert (await look(probe)).revision == before.revision


async def test_a_slice_that_vanishes_and_one_that_comes_are_noticed_at_once(mock: Mock, probe: Probe) -> None:
    before = await look(probe)

    mock.gpu(2).slice(4).vanish()
    gone = await look(probe)
    mock.gpu(2).add_slice(part(2, 9, "1g.10gb", 3, 1))
    come = await look(probe)

    assert [s.gi for s in gone.gpus[2].slices] == [3, 2]
    assert [s.gi for s in come.gpus[2].slices] == [3, 9, 2]
    assert [gone.revision, come.revision] == [before.revision + 1, before.revision + 2]


async def test_a_slice_whose_uuid_changed_is_read_anew(mock: Mock, probe: Probe) -> None:
    before = await look(probe)

    mock.gpu(2).slice(4).uuid = "MIG-other"
    after = await look(probe)

    assert "MIG-other" in [s.uuid for s in after.gpus[2].slices]
    assert after.revision == before.revision + 1


async def test_a_slice_that_kept_its_uuid_but_is_another_instance_is_found_out_in_time(
    mock: Mock, probe: Probe
) -> None:
    await look(probe)

    mock.gpu(2).slice(4).gi = 5
    for _ in range(FULL_READ_POLLS):
        picture = await look(probe)

    assert [s.gi for s in picture.gpus[2].slices] == [3, 5, 2]


# --- one card in trouble ----------------------------------------------------------------------------------------------


async def test_a_lost_card_keeps_its_name_and_no_other_card_suffers(mock: Mock, probe: Probe) -> None:
    await look(probe)

    mock.gpu(1).lost = True
    picture = await look(probe)

    seen = picture.gpus[1]
    assert (seen.uuid, seen.lost, seen.memory_used_mib, seen.processes) == ("GPU-00000001", True, None, None)
    assert [g.trouble for g in (picture.gpus[0], picture.gpus[2])] == [None, None]


async def test_a_card_lost_before_the_first_look_is_named_by_its_index_only(mock: Mock, probe: Probe) -> None:
    mock.gpu(1).lost = True

    picture = await look(probe)

    assert [g.index for g in picture.gpus] == [0, 2]
    assert picture.unidentified == ("GPU 1: the GPU fell off the bus; reboot, or reset it",)


async def test_an_error_on_one_card_is_that_cards_trouble(mock: Mock, probe: Probe) -> None:
    mock.gpu(0).add_process(os.getpid(), 10)
    await look(probe)

    mock.fault("nvmlDeviceGetMemoryInfo_v2", gpu=0, code=999)
    picture = await look(probe)
    mock.clear_faults()
    healed = await look(probe)

    assert picture.gpus[0].trouble is not None
    assert "unknown error" in picture.gpus[0].trouble
    assert picture.gpus[0].processes is None
    assert picture.gpus[1].trouble is None
    assert healed.gpus[0].trouble is None
    assert healed.gpus[0].memory_used_mib == 10


async def test_a_slow_call_is_waited_for(mock: Mock, probe: Probe) -> None:
    await look(probe)
    mock.fault("nvmlDeviceGetMemoryInfo_v2", gpu=0, delay_ms=300, times=1)
    pid = probe.pid

    began = time.monotonic()
    picture = await look(probe)

    assert time.monotonic() - began >= 0.3
    assert picture.gpus[0].memory_used_mib == 0
    assert probe.pid == pid


async def test_a_slow_call_leaves_the_event_loop_alone(mock: Mock, probe: Probe) -> None:
    await look(probe)
    mock.fault("nvmlDeviceGetMemoryInfo_v2", gpu=0, delay_ms=300, times=1)
    turns = 0

    polling = asyncio.ensure_future(probe.poll())
    while not polling.done():
        await asyncio.sleep(0.01)
        turns += 1

    assert turns > 15


async def test_a_child_that_hangs_is_replaced_in_time_and_the_next_look_answers(mock: Mock) -> None:
    async with running(mock, deadline_s=0.4) as probe:
        before = await look(probe)
        pid = probe.pid
        mock.fault("nvmlDeviceGetMemoryInfo_v2", gpu=1, delay_ms=3_600_000, times=1)

        began = time.monotonic()
        reason = await blind(probe)
        took = time.monotonic() - began
        after = await look(probe)

        assert took < 2.0
        assert reason == "NVML did not answer for 0.4 s while reading GPU 1; its process was replaced"
        assert probe.pid != pid
        assert len(after.gpus) == 3
        assert after.revision == before.revision + 1


@pytest.mark.long
async def test_a_card_that_hangs_every_time_does_not_blind_us_to_the_others(mock: Mock) -> None:
    async with running(mock, deadline_s=0.3) as probe:
        await look(probe)
        mock.fault("nvmlDeviceGetMemoryInfo_v2", gpu=1, delay_ms=3_600_000)

        await blind(probe)
        await blind(probe)
        async with asyncio.timeout(5):
            while isinstance(answer := await probe.poll(), Blind):  # noqa: ASYNC110 - replaced after a second
                await asyncio.sleep(0.05)

        assert [g.trouble for g in answer.gpus] == [None, "the driver hangs when it is asked about this GPU", None]
        assert answer.gpus[1].uuid == "GPU-00000001"
        assert answer.gpus[1].processes is None


async def test_a_killed_child_is_replaced(probe: Probe) -> None:
    await look(probe)
    assert probe.pid is not None

    os.kill(probe.pid, signal.SIGKILL)

    assert "ended without an answer" in await blind(probe)
    assert len((await look(probe)).gpus) == 3


async def test_closing_while_the_driver_hangs_is_quick(mock: Mock) -> None:
    probe = Probe(env=environment(mock.path))
    await probe.start()
    await look(probe)
    mock.fault("*", delay_ms=3_600_000)
    polling = asyncio.ensure_future(probe.poll())
    await asyncio.sleep(0.1)

    began = time.monotonic()
    await probe.close()
    answer = await polling

    assert time.monotonic() - began < 2
    assert answer == Blind(reason="the NVML probe is being closed")


# --- the driver as a whole --------------------------------------------------------------------------------------------


async def test_a_driver_that_is_unloaded_and_comes_back_needs_no_new_child(mock: Mock, probe: Probe) -> None:
    before = await look(probe)
    pid = probe.pid

    mock.unload_driver()
    reasons = [await blind(probe), await blind(probe)]
    mock.load_driver()
    after = await look(probe)

    assert reasons == ["the NVIDIA driver is not loaded; try `modprobe nvidia`"] * 2
    assert [g.uuid for g in after.gpus] == [g.uuid for g in before.gpus]
    assert after.revision == before.revision + 1
    assert probe.pid == pid


async def test_a_driver_reloaded_between_two_looks_is_a_new_revision(mock: Mock, probe: Probe) -> None:
    before = await look(probe)

    mock.unload_driver()
    mock.gpu(0).minor, mock.gpu(1).minor = 1, 0
    mock.load_driver()
    after = await look(probe)

    assert [g.minor for g in after.gpus] == [1, 0, 2]
    assert after.revision == before.revision + 1


async def test_a_card_missing_after_a_reload_is_not_made_up(mock: Mock, probe: Probe) -> None:
    await look(probe)

    mock.unload_driver()
    mock.gpu(0).present = False
    mock.gpu(1).index, mock.gpu(2).index = 0, 1
    mock.load_driver()

    assert [(g.uuid, g.index) for g in (await look(probe)).gpus] == [("GPU-00000001", 0), ("GPU-00000002", 1)]


async def test_a_card_that_moved_up_is_not_taken_for_the_nameless_one_in_its_old_place(
    mock: Mock, probe: Probe
) -> None:
    await look(probe)

    mock.unload_driver()
    mock.gpu(0).present = False
    mock.gpu(1).index, mock.gpu(2).index = 0, 1
    mock.gpu(2).lost = True
    mock.load_driver()
    picture = await look(probe)

    assert [(g.uuid, g.index, g.lost) for g in picture.gpus] == [("GPU-00000001", 0, False)]
    assert [text.partition(":")[0] for text in picture.unidentified] == ["GPU 1"]


async def test_a_newer_library_than_the_module_is_said_in_words(mock: Mock, probe: Probe) -> None:
    mock.unload_driver(init_result=18)

    assert "reboot, or reload the driver" in await blind(probe)

    mock.load_driver()
    assert len((await look(probe)).gpus) == 3


async def test_a_machine_without_the_library_is_told_to_install_the_driver(tmp_path: Path) -> None:
    probe = Probe(env={"LD_LIBRARY_PATH": str(tmp_path)})
    await probe.start()
    try:
        assert await blind(probe) == "libnvidia-ml.so.1 is not there; install the NVIDIA driver"
    finally:
        await probe.close()


async def test_a_child_that_cannot_be_started_is_blindness_and_not_a_crash() -> None:
    probe = Probe(["/nonexistent/python"])
    await probe.start()
    try:
        assert await blind(probe) == "cannot start the NVML process: No such file or directory"
    finally:
        await probe.close()


async def test_a_child_that_talks_nonsense_is_blindness_and_not_a_crash() -> None:
    probe = Probe([sys.executable, "-c", "input(); print('hello'); input()"])
    await probe.start()
    try:
        assert "ended without an answer" in await blind(probe)
    finally:
        await probe.close()


# --- callers ----------------------------------------------------------------------------------------------------------


async def test_callers_who_wait_together_share_one_look(mock: Mock, probe: Probe) -> None:
    await look(probe)
    one_look = mock.calls
    await look(probe)
    one_look = mock.calls - one_look
    mock.fault("nvmlDeviceGetCount_v2", delay_ms=200, times=1)
    first = asyncio.ensure_future(probe.poll())
    await asyncio.sleep(0.05)
    before = mock.calls

    answers = await asyncio.gather(*(probe.poll() for _ in range(20)))

    assert all(answer is answers[0] for answer in answers)
    assert answers[0] is not await first
    assert mock.calls - before <= 2 * one_look


async def test_nobody_gets_a_look_that_began_before_he_asked(mock: Mock, probe: Probe) -> None:
    await look(probe)
    mock.fault("nvmlDeviceGetUUID", gpu=2, delay_ms=300, times=1)  # by then card 0 has been read
    early = asyncio.ensure_future(probe.poll())
    await asyncio.sleep(0.15)
    mock.gpu(0).add_process(os.getpid(), 42)
    asked = time.monotonic()

    late = await look(probe)

    stale = await early
    assert isinstance(stale, Picture)
    assert stale.gpus[0].processes == ()
    assert late.gpus[0].processes == (ProcessSeen(pid=os.getpid(), used_mib=42),)
    assert late.at >= asked


async def test_a_caller_who_gives_up_takes_nobody_along(probe: Probe) -> None:
    given_up = asyncio.ensure_future(probe.poll())
    waiting = asyncio.ensure_future(probe.poll())
    await asyncio.sleep(0)

    given_up.cancel()

    assert isinstance(await waiting, Picture)


# --- cost -------------------------------------------------------------------------------------------------------------


async def test_eight_cards_with_56_slices_and_56_processes_cost_at_most_200_calls(tmp_path: Path) -> None:
    cards = [cut(n, *(part(n, 7 + s, "1g.10gb", s, 1) for s in range(7))) for n in range(8)]
    mock = Mock.create(tmp_path / "state", {"gpus": cards})
    for card in mock.gpus:
        for piece in card.slices:
            card.add_process(os.getpid(), 100, gi=piece.gi)

    async with running(mock) as probe:
        await look(probe)
        before = mock.calls
        picture = await look(probe)
        calls = mock.calls - before

    assert sum(len(g.processes or ()) for g in picture.gpus) == 56
    assert sum(len(g.slices) for g in picture.gpus) == 56
    assert calls <= 200
