"""The promise of slots to one container of one user, from the decision to the proof that nobody can use them."""

from enum import StrEnum

import msgspec

from ds01d.model.ids import AllocationId, ContainerId, SlotId, Uid


class Claim(StrEnum):
    """How firmly an allocation holds its slots."""

    #: Its container is being created.
    RESERVED = "reserved"
    #: Its container is stopped; until the deadline a start finds the same slots.
    HELD = "held"
    #: Its container is starting, running or stopping.
    BOUND = "bound"
    #: Being taken back: not free until it is proved that nobody can use the slots.
    RELEASING = "releasing"


#: Every legal move; RELEASING → BOUND is a raw start that slipped in before the permission was withdrawn.
CLAIM_MOVES: dict[Claim, frozenset[Claim]] = {
    Claim.RESERVED: frozenset({Claim.HELD, Claim.RELEASING}),
    Claim.HELD: frozenset({Claim.BOUND, Claim.RELEASING}),
    Claim.BOUND: frozenset({Claim.HELD, Claim.RELEASING}),
    Claim.RELEASING: frozenset({Claim.BOUND}),
}

#: A hold without an end; kept apart from None, which means that there is no hold.
NEVER = float(2**53)


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """n slots, all or nothing, promised to one container."""

    id: AllocationId
    container: ContainerId
    uid: Uid
    user: str
    slots: tuple[SlotId, ...]
    gpueq: float
    claim: Claim
    since: float
    #: Exactly while HELD: when the hold ends, epoch seconds or NEVER.
    deadline: float | None = None
    #: While BOUND: the end that the hold had before, for a start that fails.
    fallback: float | None = None
    #: Only NVML still shows something there, since then.
    lingering_since: float | None = None
    #: What is still there, in words.
    lingering: str | None = None
    #: A slot of it is gone from NVML.
    lost: bool = False
    #: A word for the log: why it is being released.
    reason: str = ""
