"""What a picture shows of one slot: an unread figure is trouble, and never a free slot."""

import msgspec

from ds01d.adapters.engine_slots import slot_seen
from ds01d.model.ids import SlotId
from ds01d.model.probe import GpuSeen, Picture, ProcessSeen, SliceSeen, SliceUnread

WHOLE = GpuSeen(
    uuid="GPU-a",
    index=0,
    minor=0,
    name="card",
    memory_total_mib=1000,
    memory_used_mib=5,
    processes=(ProcessSeen(pid=1),),
)
SLICE = SliceSeen(
    profile="2g.20gb",
    start=2,
    size=2,
    compute=2,
    compute_of=7,
    gi=5,
    ci=0,
    uuid="MIG-x",
    memory_total_mib=200,
    memory_used_mib=3,
)
CUT = GpuSeen(
    uuid="GPU-a",
    index=0,
    minor=0,
    name="card",
    memory_total_mib=1000,
    mig=True,
    slices=(SLICE,),
    processes=(ProcessSeen(pid=1, gi=5), ProcessSeen(pid=2, gi=6), ProcessSeen(pid=3, gi=None)),
)
A, PART = SlotId("GPU-a"), SlotId("GPU-a/2g.20gb@2")


def picture(*gpus: GpuSeen, unidentified: tuple[str, ...] = ()) -> Picture:
    return Picture(at=0, revision=1, driver="1", gpus=gpus, unidentified=unidentified)


def test_a_whole_card_has_all_its_processes() -> None:
    seen = slot_seen(picture(WHOLE), A)
    assert (seen.pids, seen.used_mib, seen.trouble, seen.lost) == ((1,), 5, None, False)


def test_a_slice_has_its_own_processes_and_those_that_may_be_in_any() -> None:
    seen = slot_seen(picture(CUT), PART)
    assert (seen.pids, seen.used_mib) == ((1, 3), 3)


def test_a_card_that_is_not_listed_is_lost_unless_a_nameless_one_may_be_it() -> None:
    assert slot_seen(picture(), A).lost
    seen = slot_seen(picture(unidentified=("GPU 0: unknown error",)), A)
    assert not seen.lost
    assert seen.trouble == "GPU 0: unknown error"


def test_a_slice_that_was_cut_away_is_lost_unless_an_unread_one_may_be_it() -> None:
    empty = msgspec.structs.replace(CUT, slices=())
    assert slot_seen(picture(empty), PART).lost
    unread = msgspec.structs.replace(empty, unread=(SliceUnread(uuid=None, trouble="in use"),))
    assert slot_seen(picture(unread), PART).trouble == "in use"


def test_a_card_that_was_cut_is_no_whole_card_any_more() -> None:
    assert slot_seen(picture(CUT), A).lost


def test_trouble_of_the_card_is_trouble_of_its_slots() -> None:
    for card, slot in ((WHOLE, A), (CUT, PART)):
        seen = slot_seen(picture(msgspec.structs.replace(card, trouble="ECC")), slot)
        assert (seen.trouble, seen.lost) == ("ECC", False)


def test_processes_that_the_driver_did_not_tell_are_trouble() -> None:
    assert slot_seen(picture(msgspec.structs.replace(WHOLE, processes=None)), A).trouble is not None


def test_a_card_that_fell_off_the_bus_is_lost() -> None:
    assert slot_seen(picture(msgspec.structs.replace(WHOLE, lost=True)), A).lost
