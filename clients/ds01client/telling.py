"""One event in a line, in the form in which the daemon shows those of the past. The raw values are in `--json`."""

import time
from datetime import datetime

#: Facts that are said otherwise, or mean something to programs only.
_UNSAID = {
    *("container", "id", "engine_id", "gpueq", "slots", "slot", "gpu", "until", "kind"),
    *("message", "why", "reason", "text"),
}


def told(event: dict[str, object]) -> str:
    """`14:20:05  gpu.held  alice  thesis  GPU 4:0, until 14:50: created, not started yet`, on this host's clock."""
    details = event.get("details")
    found = details if isinstance(details, dict) else {}
    columns = [
        _moment(event.get("timestamp")),
        f"{event.get('event_type') or '-':19}",
        f"{event.get('user') or '-':8}",
        f"{_word(found.get('container') or '-'):12}",
        _facts(found),
    ]
    text = "  ".join(columns).rstrip()
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _facts(found: dict[str, object]) -> str:
    said = [
        f"{k.replace('_', ' ')} {_word(v)}"
        for k, v in found.items()
        if k not in _UNSAID and v not in (None, "", [], 0, False)
    ]
    gpu = found.get("slots") or found.get("slot") or found.get("gpu")
    if gpu is not None:
        said.insert(0, f"GPU {_word(gpu)}")
    ends = found.get("until")
    if isinstance(ends, int | float):
        said.append(f"until {_clock(ends, '%H:%M')}")
    because = found.get("message") or found.get("why") or found.get("reason") or found.get("text")
    return f"{', '.join(said)}: {because}" if said and because else ", ".join(said) or str(because or "")


def _word(value: object) -> str:
    if isinstance(value, list):
        return ",".join([str(v) for v in value])
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _moment(timestamp: object) -> str:
    try:
        return _clock(datetime.fromisoformat(str(timestamp)).timestamp(), "%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(timestamp)


def _clock(at: float, form: str) -> str:
    """With the date when it is not today."""
    then = time.localtime(at)
    today = time.localtime()[:3] == then[:3]
    return time.strftime(form if today else f"%Y-%m-%d {form}", then)
