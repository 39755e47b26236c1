"""What happened, a line each: when, what, whose, and the facts in words. The raw values are for programs."""

from datetime import datetime

from ds01d.api.render.page import Page, clean
from ds01d.core.views.chronicle import EventView

#: Facts that are said otherwise, or mean something to programs only.
_UNSAID = {
    *("container", "id", "engine_id", "gpueq", "slots", "slot", "gpu", "until", "kind"),
    *("message", "why", "reason", "text", "verb"),
}


def lines(events: tuple[EventView, ...], page: Page) -> str:
    """All of them, in their order."""
    return "".join([f"{line(e, page)}\n" for e in events])


def line(e: EventView, page: Page) -> str:
    """`14:20:05  gpu.held  alice  thesis  GPU 4:0, until 14:50: created, not started yet`, on this host's clock."""
    found = e.details
    columns = [
        page.clock(datetime.fromisoformat(e.timestamp).timestamp(), seconds=True),
        f"{e.event_type:19}",
        f"{e.user or '-':8}",
        f"{_word(found.get('container') or '-'):12}",
        _facts(found, page),
    ]
    return clean("  ".join(columns).rstrip())


def _facts(found: dict[str, object], page: Page) -> str:
    because = found.get("message") or found.get("why") or found.get("reason") or found.get("text")
    said = [
        words
        for k, v in found.items()
        if k not in _UNSAID
        and v not in (None, "", [], (), 0, False)
        and (words := f"{k.replace('_', ' ')} {_word(v)}") not in str(because)
    ]
    if found.get("verb"):
        said.insert(0, f"{found['verb']} failed")
    gpu = found.get("slots") or found.get("slot") or found.get("gpu")
    if gpu is not None:
        said.insert(0, f"GPU {_word(gpu)}")
    ends = found.get("until")
    if isinstance(ends, int | float):
        said.append(f"until {page.clock(ends)}")
    return f"{', '.join(said)}: {because}" if said and because else ", ".join(said) or str(because or "")


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join([str(v) for v in value])
    return f"{value:.3g}" if isinstance(value, float) else str(value)
