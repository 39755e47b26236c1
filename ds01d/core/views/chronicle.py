"""What happened, as each reader may see it: operators all, others their own, and of other people's slots no names."""

from datetime import UTC, datetime

import msgspec

from ds01d.model.actor import Actor
from ds01d.model.chronicle import EventLine

#: What of a slot's change is told to whom it does not concern.
_OF_SLOTS = ("slots", "slot", "gpu", "gpueq", "until")


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One event, in the form in which it also lies in events.jsonl."""

    #: UTC, `2026-11-20T14:20:00Z`.
    timestamp: str
    event_type: str
    user: str | None
    source: str
    details: dict[str, object]
    schema_version: int = 1


def visible(line: EventLine, actor: Actor) -> EventView | None:
    """The line as this reader may see it, or None: it is not for him."""
    if actor.operator or (line.user is not None and line.user == actor.name):
        return _view(line, line.user, line.source, line.details)
    if line.event_type.startswith("gpu.") and line.event_type != "gpu.rejected":
        return _view(line, None, "ds01d", {k: v for k, v in line.details.items() if k in _OF_SLOTS})
    return None


def concerns(line: EventLine, thing: str) -> bool:
    """Whether a line is about this container or this slot, by any of the names it goes under."""
    details = line.details
    if thing in {details.get("container"), details.get("id"), details.get("slot"), details.get("engine_id")}:
        return True
    slots = details.get("slots")
    return isinstance(slots, list | tuple) and thing in slots


def _view(line: EventLine, user: str | None, source: str, details: dict[str, object]) -> EventView:
    moment = datetime.fromtimestamp(line.at, UTC)
    return EventView(
        timestamp=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        event_type=line.event_type,
        user=user,
        source=source,
        details=details,
    )
