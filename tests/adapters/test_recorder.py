"""What is written down: whole lines in the promised form, whatever becomes of the disk, and read back from the end."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ds01d.adapters.recorder import Recorder
from ds01d.model.account import Missing
from ds01d.model.chronicle import AllocationLine, EventLine
from ds01d.model.operation import Failure

AT = 1_795_184_400.25


def nobody() -> Missing:
    """There is no group of operators on this machine."""
    return Missing.NO_SUCH


def event(n: int = 0, event_type: str = "gpu.held", user: str | None = "alice", **details: object) -> EventLine:
    return EventLine(at=AT + n, event_type=event_type, user=user, details={"n": n, **details})


def allocation(reason: str = "USER_AT_LIMIT (2/2)", user: str = "alice") -> AllocationLine:
    return AllocationLine(at=AT, event="REJECTED", user=user, container="thesis", slot="-", reason=reason)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path, readers=nobody)
    yield made
    made.close()


def everything(_: EventLine) -> bool:
    return True


async def read(
    recorder: Recorder,
    wanted: Callable[[EventLine], bool] = everything,
    *,
    since: float | None = None,
    until: float | None = None,
    limit: int = 100,
) -> list[object]:
    found = await recorder.events(wanted, since=since, until=until, limit=limit)
    assert not isinstance(found, Failure)
    return [line.details["n"] for line in found]


def test_an_event_is_one_line_with_the_promised_keys(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(event(event_type="container.stopped", why="a\nb"))
    assert recorder.settle()

    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "timestamp": "2026-11-20T14:20:00.250Z",
        "event_type": "container.stopped",
        "schema_version": 1,
        "user": "alice",
        "source": "ds01d",
        "details": {"n": 0, "why": "a\nb"},
    }


def test_an_allocation_is_one_line_with_bars_between(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(allocation())
    assert recorder.settle()

    written = (tmp_path / "gpu-allocations.log").read_text()
    assert written == "2026-11-20T14:20:00Z|REJECTED|alice|thesis|-|USER_AT_LIMIT (2/2)\n"


def test_a_bar_or_a_line_break_in_a_field_ends_neither_field_nor_line(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(allocation(reason="a|b\nc\rd\\e"))
    assert recorder.settle()

    (line,) = (tmp_path / "gpu-allocations.log").read_text().split("\n")[:-1]
    assert line.endswith(r"|a\|b\nc\rd\\e")


@pytest.mark.root
def test_both_files_are_for_the_operators_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        recorder = Recorder(tmp_path, readers=lambda: 4321)
        recorder.record(event())
        recorder.record(allocation())
        recorder.close()
    finally:
        os.umask(before)

    assert {p.name: (p.stat().st_mode & 0o777, p.stat().st_gid) for p in tmp_path.iterdir()} == {
        "events.jsonl": (0o640, 4321),
        "gpu-allocations.log": (0o640, 4321),
    }


@pytest.mark.root
def test_what_is_written_while_nobody_tells_the_group_is_theirs_as_soon_as_somebody_does(tmp_path: Path) -> None:
    known: list[int] = []
    recorder = Recorder(tmp_path, readers=lambda: known[0] if known else Missing.SILENT)
    recorder.record(event())
    assert recorder.settle()
    path = tmp_path / "events.jsonl"
    assert path.stat().st_gid == os.getegid()

    known.append(4321)
    recorder.record(event(1))
    recorder.close()
    assert (path.stat().st_gid, len(path.read_text().splitlines())) == (4321, 2)


@pytest.mark.parametrize("family", ["container.created", "gpu.rejected", "queue.x", "quota.x", "maintenance.idle"])
def test_what_history_is_played_again_from_is_never_cut(recorder: Recorder, tmp_path: Path, family: str) -> None:
    recorder.record(event(event_type=family, words="x" * 20_000))
    assert recorder.settle()

    assert len(json.loads((tmp_path / "events.jsonl").read_text())["details"]["words"]) == 20_000


def test_other_events_of_any_size_are_cut_and_say_so(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(event(event_type="workload.appeared", cmdline="x" * 20_000))
    assert recorder.settle()

    details = json.loads((tmp_path / "events.jsonl").read_text())["details"]
    assert details["truncated"] is True
    assert details["original_size"] > 20_000


def test_after_logrotate_lines_go_into_the_new_file(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(event(1))
    assert recorder.settle()
    (tmp_path / "events.jsonl").rename(tmp_path / "events.jsonl.1")

    recorder.record(event(2))
    assert recorder.settle()

    assert [json.loads(p.read_text())["details"]["n"] for p in sorted(tmp_path.glob("events*"))] == [2, 1]


async def test_what_was_rotated_away_is_still_read(recorder: Recorder, tmp_path: Path) -> None:
    recorder.record(event(1))
    recorder.settle()
    (tmp_path / "events.jsonl").rename(tmp_path / "events.jsonl.1")
    recorder.record(event(2))

    assert await read(recorder) == [1, 2]


async def test_what_was_recorded_a_moment_ago_is_read(recorder: Recorder) -> None:
    for n in range(2000):
        recorder.record(event(n))

    assert await read(recorder, limit=3) == [1997, 1998, 1999]


async def test_a_reader_gets_what_he_wants_between_two_moments(recorder: Recorder) -> None:
    for n in range(10):
        recorder.record(event(n, user="alice" if n % 2 else "bob"))

    def of_alice(line: EventLine) -> bool:
        return line.user == "alice"

    assert await read(recorder, of_alice, since=AT + 2, until=AT + 7) == [3, 5, 7]


async def test_nothing_was_ever_recorded_is_an_answer(recorder: Recorder) -> None:
    assert await read(recorder) == []


async def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    first = Recorder(tmp_path, readers=nobody)
    first.record(event(1))
    first.close()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"timestamp":"2026-11-20T14:2')

    second = Recorder(tmp_path, readers=nobody)
    second.record(event(2))

    assert await read(second) == [1, 2]
    second.close()


async def test_lines_longer_than_a_block_and_lines_that_are_none_are_read_or_passed_over(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.record(event(1, words="ä" * 100_000))
    recorder.settle()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n\n[1]\n" + b"x" * 3_000_000 + b"\n")
    recorder.record(event(2))

    assert await read(recorder) == [1, 2]


def test_a_queue_that_is_full_loses_lines_counts_them_and_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    recorder = Recorder(tmp_path / "logs", readers=nobody, queue_max=5)
    begun = time.monotonic()

    for n in range(50):
        recorder.record(event(n))

    assert time.monotonic() - begun < 2
    assert recorder.lost >= 40
    recorder.close()


def test_a_line_that_cannot_be_written_as_text_takes_no_other_with_it(recorder: Recorder, tmp_path: Path) -> None:
    for line in (event(1), event(2, words="\udcff"), event(3)):
        recorder.record(line)
    assert recorder.settle()

    assert [json.loads(x)["details"]["n"] for x in (tmp_path / "events.jsonl").read_text().splitlines()] == [1, 3]
    assert recorder.lost == 1


def test_a_chore_that_fails_takes_no_line_with_it(recorder: Recorder, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no")

    recorder.do(fail)
    recorder.record(event(1))

    assert recorder.settle()
    assert (tmp_path / "events.jsonl").exists()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as others, suppress(OSError):
        while True:
            others.write(b"x" * 4096)


@pytest.mark.long
@pytest.mark.root
def test_a_disk_that_was_full_for_a_while_costs_no_line_and_leaves_no_half_one(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        recorder = Recorder(disk, readers=nobody)
        recorder.record(event(0))
        assert recorder.settle()
        fill(disk / "others")
        for n in range(1, 200):
            recorder.record(event(n, words="y" * 500))
        full = recorder.settle(0.2)
        (disk / "others").unlink()
        again = recorder.settle(5.0)
        recorder.close()
        written = [json.loads(line)["details"]["n"] for line in (disk / "events.jsonl").read_text().splitlines()]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

    assert (full, again) == (False, True)
    assert written == list(range(200))
    assert recorder.lost == 0
