"""What is saved comes back as it was."""

from ds01d.core import laws
from ds01d.core.snapshot import dump, load
from tests.core.world import World


def _busy() -> World:
    world = World()
    world.with_running("alice", "training")
    world.with_stopped("bob", "b")
    world.ask_create("carol", "x", request_id='r"1')
    return world


def test_a_snapshot_gives_back_every_record_and_the_counter() -> None:
    before = _busy().state
    after = load(dump(before), lineage="L", revision=before.revision)
    laws.check(after)
    assert {name: t.rows for name, t in after.tables.items()} == {name: t.rows for name, t in before.tables.items()}
    assert after.counter == before.counter
    assert dump(after) == dump(before)
    assert after.next_deadline() == before.next_deadline()


def test_a_snapshot_loaded_under_a_new_lineage_remembers_the_old_one() -> None:
    before = _busy().state
    after = load(dump(before), lineage="M", written_by="L")
    assert (after.lineage, after.lineages) == ("M", ("L",))
    again = load(dump(after), lineage="M", written_by="M")
    assert again.lineages == ("L",)
