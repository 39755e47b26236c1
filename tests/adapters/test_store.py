"""The state file against what happens to files: a killed writer, a full disk, broken bytes, other people's versions."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ds01d.adapters.store import (
    AlreadyRunning,
    Empty,
    Loaded,
    Saved,
    ScriptEra,
    Snapshot,
    Store,
    TooNew,
    Unreadable,
)
from ds01d.adapters.store_migrations import MIGRATIONS, SCHEMA
from ds01d.core import laws
from ds01d.core.snapshot import load as recall

GOLDEN = Path(__file__).parent.parent / "golden" / "states"


def snapshot(revision: int, body: bytes = b'{"containers":{}}') -> Snapshot:
    return Snapshot(lineage="abc", boot_id="boot-1", revision=revision, body=body)


def loaded(store: Store) -> Loaded:
    found = store.load()
    assert isinstance(found, Loaded), found
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_was_saved_is_loaded_byte_for_byte(store: Store) -> None:
    body = '{"containers": {"ä": 1e3}, "x":[1,2]}'.encode()

    assert store.save(snapshot(7, body)) == Saved()

    assert loaded(store) == Loaded(lineage="abc", boot_id="boot-1", revision=7, state=body)


def test_a_first_start_finds_nothing(store: Store) -> None:
    assert store.load() == Empty()


def test_only_root_may_read_the_state_whatever_the_umask(store: Store, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store.save(snapshot(1))
        store.save(snapshot(2))
    finally:
        os.umask(before)

    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {
        "gpu-state.json": 0o600,
        "gpu-state.json.1": 0o600,
    }


def test_the_file_can_be_read_by_people(store: Store, tmp_path: Path) -> None:
    store.save(snapshot(3))

    document = json.loads((tmp_path / "gpu-state.json").read_bytes())

    assert list(document) == ["schema", "lineage", "boot_id", "rev", "checksum", "state"]


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    at = raw.index(b'"containers"') + 3
    raw[at] ^= 1
    path.write_bytes(bytes(raw))


def change_revision(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"rev":2', b'"rev":9'))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 500)


def not_an_object(path: Path) -> None:
    path.write_bytes(b"[]")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def bottomless(path: Path) -> None:
    path.write_bytes(b"[" * 200_000)


BREAKS = [bottomless, flip, change_revision, cut, empty, garbage, not_an_object, directory]


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_file_gives_way_to_the_older_one(store: Store, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store.save(snapshot(1))
    store.save(snapshot(2))
    damage(tmp_path / "gpu-state.json")

    found = loaded(store)

    assert (found.revision, found.fell_back) == (1, True)
    assert "gpu-state.json" in found.trouble


def test_the_boot_id_is_no_part_of_what_must_be_whole(store: Store, tmp_path: Path) -> None:
    store.save(snapshot(1))
    file = tmp_path / "gpu-state.json"
    file.write_bytes(file.read_bytes().replace(b"boot-1", b"boot-2"))

    assert loaded(store).boot_id == "boot-2"


def test_the_next_save_does_not_push_the_good_older_file_out_with_the_broken_one(store: Store, tmp_path: Path) -> None:
    store.save(snapshot(1))
    store.save(snapshot(2))
    cut(tmp_path / "gpu-state.json")
    loaded(store)

    store.save(snapshot(3))

    assert loaded(store).revision == 3
    (tmp_path / "gpu-state.json").unlink()
    assert loaded(store).revision == 1
    assert (tmp_path / "gpu-state.json.broken").exists()


def test_the_older_file_alone_is_an_older_state(store: Store, tmp_path: Path) -> None:
    store.save(snapshot(1))
    store.save(snapshot(2))
    (tmp_path / "gpu-state.json").unlink()

    found = loaded(store)

    assert (found.revision, found.fell_back) == (1, True)


def test_two_broken_files_are_not_a_first_start(store: Store, tmp_path: Path) -> None:
    store.save(snapshot(1))
    store.save(snapshot(2))
    cut(tmp_path / "gpu-state.json")
    flip(tmp_path / "gpu-state.json.1")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    found = store.load()

    assert isinstance(found, Unreadable)
    assert "gpu-state.json:" in found.reason
    assert "gpu-state.json.1:" in found.reason
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_broken_file_without_an_older_one_is_not_a_first_start(store: Store, tmp_path: Path) -> None:
    empty(tmp_path / "gpu-state.json")

    assert isinstance(store.load(), Unreadable)


def test_a_newer_file_is_refused_with_both_versions_even_if_the_older_one_would_do(
    store: Store, tmp_path: Path
) -> None:
    store.save(snapshot(1))
    Store(tmp_path, schema=SCHEMA + 4).save(snapshot(2))

    with pytest.raises(TooNew, match=rf"schema {SCHEMA + 4}, .* up to {SCHEMA}"):
        store.load()


def test_a_newer_file_is_known_as_such_whatever_else_changed_in_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "gpu-state.json").write_text('{"schema": 99, "tables": []}')

    with pytest.raises(TooNew):
        store.load()


def test_the_state_of_the_scripts_is_named_and_left_where_it_is(store: Store, tmp_path: Path) -> None:
    old = tmp_path / "gpu-state.json"
    old.write_text('{"gpus": {"0": {}}, "mig_enabled": true, "allocation_strategy": "least_allocated"}')

    with pytest.raises(ScriptEra, match=rf"old allocator scripts.*mv {old} "):
        store.load()

    assert old.exists()


def test_an_older_schema_is_taken_through_every_step(tmp_path: Path) -> None:
    Store(tmp_path).save(snapshot(5, b'{"names":["a"]}'))
    steps = {
        SCHEMA: lambda d: {"people": d["names"]},
        SCHEMA + 1: lambda d: {**d, "count": len(d["people"])},
    }

    found = loaded(Store(tmp_path, schema=SCHEMA + 2, migrations=steps))

    assert json.loads(found.state) == {"people": ["a"], "count": 1}
    assert (found.revision, found.schema) == (5, SCHEMA)


def test_a_schema_without_a_way_to_todays_is_not_a_first_start(tmp_path: Path) -> None:
    Store(tmp_path).save(snapshot(5))

    found = Store(tmp_path, schema=SCHEMA + 2, migrations={SCHEMA: lambda d: d}).load()

    assert isinstance(found, Unreadable)
    assert f"from schema {SCHEMA + 1} to {SCHEMA + 2}" in found.reason


def test_every_step_that_is_shipped_leads_on_to_the_next() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_a_file_of_every_schema_there_ever_was_still_loads(tmp_path: Path, schema: int) -> None:
    golden = GOLDEN / f"schema-{schema}.json"
    (tmp_path / "gpu-state.json").write_bytes(golden.read_bytes())

    found = loaded(Store(tmp_path))

    assert (found.schema, found.fell_back) == (schema, False)
    state = recall(found.state, lineage=found.lineage, revision=found.revision)
    laws.check(state)
    assert len(state.containers) == 2
    assert len(state.allocations) == 2


def test_a_second_daemon_is_refused_in_words(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.lock()

    with pytest.raises(AlreadyRunning, match=rf"another ds01d \(process {os.getpid()}\)"):
        second.lock()

    first.unlock()
    second.lock()
    second.unlock()


WRITER = """
import sys
from pathlib import Path
from ds01d.adapters.store import Snapshot, Store
store, revision = Store(Path(sys.argv[1])), int(sys.argv[2])
while True:
    revision += 1
    body = b'{"r":%d,"fill":"%s"}' % (revision, b"x" * (revision * 37 % 9000))
    store.save(Snapshot(lineage="abc", boot_id="b", revision=revision, body=body))
    print(revision, flush=True)
"""


def killed_writer(directory: Path, revision: int, after_s: float) -> int:
    """Let a writer run for so long, kill it, and give the last revision that it said was saved."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(revision)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        try:
            writer.wait(after_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        told = first + writer.stdout.read()
    return int(told.rsplit("\n", 2)[-2])


def test_a_writer_killed_at_any_moment_leaves_the_last_revision_it_had_told_or_a_later_one(tmp_path: Path) -> None:
    moments = random.Random(11)
    revision = 0

    for _ in range(25):
        told = killed_writer(tmp_path, revision, moments.uniform(0.0, 0.05))
        found = loaded(Store(tmp_path))

        assert found.revision >= told
        assert not found.fell_back
        assert json.loads(found.state)["r"] == found.revision
        revision = found.revision


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.root
def test_a_full_disk_costs_the_ballast_once_and_no_revision(small_disk: Path) -> None:
    store = Store(small_disk)
    store.lock()
    store.save(snapshot(1))
    fill(small_disk)

    given_up = store.save(snapshot(2, b'{"fill":"%s"}' % (b"x" * 300_000)))
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        store.save(snapshot(3, b'{"fill":"%s"}' % (b"x" * 300_000)))

    store.unlock()
    assert given_up == Saved(ballast_given_up=True)
    assert loaded(store).revision == 2
    assert not (small_disk / "gpu-state.json.tmp").exists()


@pytest.mark.root
def test_a_new_start_lays_the_ballast_in_again_when_there_is_room(small_disk: Path) -> None:
    fill(small_disk)
    store = Store(small_disk)

    store.lock()
    store.unlock()
    nothing = (small_disk / "ballast").exists()
    (small_disk / "others").unlink()
    store.lock()
    store.unlock()

    assert not nothing
    assert (small_disk / "ballast").stat().st_size == 1 << 20


@pytest.mark.root
def test_a_directory_on_a_read_only_disk_can_be_locked_and_read(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.lock()
    first.save(snapshot(1))
    first.unlock()
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        second = Store(tmp_path)
        second.lock()
        assert loaded(second).revision == 1
        with pytest.raises(AlreadyRunning):
            Store(tmp_path).lock()
        second.unlock()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
def test_a_daemon_that_saves_nothing_just_now_keeps_no_disk_from_being_made_read_only(tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        store = Store(tmp_path)
        store.lock()
        store.save(snapshot(1))
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        store.unlock()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
