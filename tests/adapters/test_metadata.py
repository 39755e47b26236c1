"""What other programs may read of a container."""

import json
import os
from pathlib import Path

from ds01d.adapters.metadata import MetadataFiles
from ds01d.core.views.metadata import metadata_of
from ds01d.model.ids import ContainerId
from ds01d.model.metadata import ContainerMetadata
from tests.core.world import World


def thesis() -> ContainerMetadata:
    return ContainerMetadata(
        engine_name="thesis._.1001",
        id="k7p2-4",
        name="thesis",
        user="alice",
        uid=1001,
        image="pytorch:latest",
        phase="stopped",
        allocation="k7p2-5",
        slots=("0:1",),
        gpueq=2 / 7,
        allocated_at=1_795_000_000.0,
        deadline=1_795_003_600.0,
    )


def test_one_file_for_each_container_with_times_that_people_can_read(tmp_path: Path) -> None:
    files = MetadataFiles(tmp_path / "container-metadata", readers=lambda: 0)
    before = os.umask(0)
    try:
        files.write(thesis())
        files.write(thesis())
    finally:
        os.umask(before)

    path = tmp_path / "container-metadata" / "thesis._.1001.json"
    document = json.loads(path.read_text())
    assert (document["slots"], document["allocated_at"], document["stopped_at"]) == (
        ["0:1"],
        "2026-11-18T11:06:40Z",
        None,
    )
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_it_goes_with_its_container(tmp_path: Path) -> None:
    files = MetadataFiles(tmp_path, readers=lambda: 0)
    files.write(thesis())

    files.remove("thesis._.1001")
    files.remove("thesis._.1001")

    assert list(tmp_path.iterdir()) == []


def test_after_a_start_only_those_of_containers_that_are_still_there_are_kept(tmp_path: Path) -> None:
    files = MetadataFiles(tmp_path, readers=lambda: 0)
    files.write(thesis())
    (tmp_path / "old._.1001.json").write_text("{}")
    (tmp_path / "half._.1001.tmp").write_text("{")

    files.keep_only(frozenset({"thesis._.1001"}))

    assert [p.name for p in tmp_path.iterdir()] == ["thesis._.1001.json"]


def test_a_held_container_is_told_with_its_slots_and_until_when() -> None:
    world = World()
    world.with_stopped("bob", "b")
    (c,) = world.state.containers

    told = metadata_of(world.state, c.id)

    allocation = world.state.allocation_of(c.id)
    assert told is not None
    assert allocation is not None
    assert (told.name, told.phase, told.allocation, told.deadline) == (
        "b",
        "stopped",
        allocation.id,
        allocation.deadline,
    )
    assert len(told.slots) == 1


def test_a_container_that_is_gone_is_told_no_more() -> None:
    assert metadata_of(World().state, ContainerId("L-1")) is None
