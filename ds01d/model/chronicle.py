"""What is written down for people: a line of events.jsonl, a line of the allocation log. Never read back as truth."""

import msgspec


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of events.jsonl."""

    #: Epoch seconds.
    at: float
    #: Dotted, family first: `container.stopped`, `gpu.held`, `auth.denied`.
    event_type: str
    #: Whom it concerns; None: nobody in particular.
    user: str | None = None
    #: Who brought it about: a user's name, or `ds01d`.
    source: str = "ds01d"
    details: dict[str, object] = {}


class AllocationLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the allocation log: one slot, one change."""

    #: Epoch seconds.
    at: float
    #: ALLOCATED, REJECTED, HELD, RELEASED, PARKED …
    event: str
    user: str
    container: str
    #: As people write it, `0:1`; `-`: none.
    slot: str
    #: A word first, then figures: `USER_AT_LIMIT (2/2)`.
    reason: str
