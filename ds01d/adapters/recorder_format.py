"""One line of events.jsonl and one of the allocation log, to text and back. Where the lines go is recorder.py's."""

from datetime import UTC, datetime

import msgspec

from ds01d.model.chronicle import AllocationLine, EventLine

SCHEMA_VERSION = 1
#: Bytes that the details of an event may take, where they may be cut at all.
DETAILS_BYTES_MAX = 4000
#: Families of which every word is kept, so that history can be played again: what was asked, given and stopped.
_WHOLE = ("container.", "gpu.", "queue.", "quota.", "maintenance.")

_encode = msgspec.json.Encoder(enc_hook=str).encode
_ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": "\\n", "\r": "\\r"})


class _Written(msgspec.Struct):
    timestamp: str
    event_type: str
    schema_version: int = SCHEMA_VERSION
    user: str | None = None
    source: str = ""
    details: dict[str, object] = {}


_decode = msgspec.json.Decoder(_Written).decode


def event_text(line: EventLine) -> bytes:
    """One line of events.jsonl, with its line break."""
    encoded = _encode(line.details)
    if len(encoded) > DETAILS_BYTES_MAX and not line.event_type.startswith(_WHOLE):
        encoded = _encode({"truncated": True, "original_size": len(encoded)})
    head = _encode(
        {
            "timestamp": stamp(line.at, precise=True),
            "event_type": line.event_type,
            "schema_version": SCHEMA_VERSION,
            "user": line.user,
            "source": line.source,
        }
    )
    return b"".join((head[:-1], b',"details":', encoded, b"}\n"))


def read_event(text: bytes) -> EventLine | None:
    """The event of one line; None: it is torn, or not ours."""
    try:
        found = _decode(text)
        at = datetime.fromisoformat(found.timestamp).timestamp()
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return EventLine(at=at, event_type=found.event_type, user=found.user, source=found.source, details=found.details)


def allocation_text(line: AllocationLine) -> bytes:
    """One line of the allocation log: `timestamp|event|user|container|gpu_id|reason`."""
    parts = (stamp(line.at), line.event, line.user, line.container, line.slot, line.reason)
    return ("|".join(part.translate(_ESCAPES) for part in parts) + "\n").encode(errors="backslashreplace")


def stamp(at: float, *, precise: bool = False) -> str:
    """UTC, `2026-11-20T14:20:00Z`; precise: with milliseconds, rounded down so that order is kept."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds" if precise else "seconds").removesuffix("+00:00") + "Z"
