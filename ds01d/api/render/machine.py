"""The machine in words: slots, what is amiss, who has what, and what happened."""

from ds01d.api.handlers.container import ContainerList
from ds01d.api.handlers.machine import AllocationList, GpuList, ImageList
from ds01d.api.handlers.operation import OperationList
from ds01d.api.handlers.system import Events, MachineStatus, Story, Version
from ds01d.api.render import container, past
from ds01d.api.render.page import Page, clean, size, table
from ds01d.core.views.machine import Notice, Share
from ds01d.core.views.slots import AllocationView, SlotState, SlotView

_COLOURS = {
    SlotState.FREE.value: "green",
    SlotState.IN_USE.value: "yellow",
    SlotState.HELD.value: "yellow",
    SlotState.LINGERING.value: "red",
    SlotState.LOST.value: "red",
    SlotState.OCCUPIED.value: "red",
    SlotState.UNSEEN.value: "red",
    SlotState.DRAINED.value: "dim",
    SlotState.NOT_OFFERED.value: "dim",
}


#: Seconds after which a look at the GPUs is no longer worth the words `just now`.
_FRESH_S = 10.0


def status(s: MachineStatus, page: Page) -> str:
    """The machine, then what the reader has of it."""
    parts = [notices(s.notices, page), _slots(s.slots, page), share(s.share) if s.share.user != "root" else ""]
    if s.containers:
        own = ContainerList(containers=s.containers)
        parts.append(container.listing(own, page))
    return "\n".join([p for p in parts if p])


def gpus(g: GpuList, page: Page) -> str:
    """Every slot, and what is amiss with the cards."""
    troubled = [f"GPU {c.index}: {'gone from NVML' if c.lost else c.trouble}" for c in g.gpus if c.lost or c.trouble]
    amiss = "".join([f"{clean(line)}\n" for line in troubled])
    stale = g.seen_at is not None and page.now - g.seen_at > _FRESH_S
    seen = f"last seen {page.away(g.seen_at)}\n" if stale and g.seen_at is not None else ""
    return "\n".join([p for p in (_slots(g.slots, page) + amiss, seen) if p])


def notices(found: tuple[Notice, ...], page: Page) -> str:
    """What is amiss, a line each."""
    lines = []
    for n in found:
        since = f", since {page.moment(n.since)}" if n.since is not None else ""
        lines.append(page.paint("red", f"{n.severity}{since}: {clean(n.text)}"))
    return "".join([f"{line}\n" for line in lines])


def _slots(slots: tuple[SlotView, ...], page: Page) -> str:
    if not slots:
        return "no GPUs\n"
    heads = ["GPU", "TYPE", "MEMORY", "STATE", "USER", "CONTAINER", "UNTIL", "NOTE"]
    return table(page, heads, [_slot(s, page) for s in slots], _COLOURS)


def _slot(s: SlotView, page: Page) -> list[str]:
    when = page.moment(s.until) if s.until is not None else "no end" if s.for_ever else ""
    kind = s.profile or s.gpu_name
    # Why nothing can be seen is said once, above.
    note = "" if s.state is SlotState.UNSEEN else s.reason
    return [s.slot, kind, size(s.memory_mib), s.state.value, s.user or "", s.container or "", when, note]


def share(s: Share) -> str:
    """What one has of what one may have."""
    gpueq = "" if s.gpueq_max is None else f", {s.gpueq:.3g} of {s.gpueq_max:.3g} GPU-equivalents"
    return (
        f"{clean(s.user)} ({clean(s.group)}): {_of(s.slots, s.slots_max)} GPUs{gpueq},"
        f" {_of(s.containers, s.containers_max)} containers\n"
    )


def allocations(a: AllocationList, page: Page) -> str:
    """Which container holds which slots."""
    if not a.allocations:
        return "none of yours; everybody's: ds01ctl allocations --all\n" if a.others else "no allocations\n"
    heads = ["USER", "CONTAINER", "GPU(S)", "CLAIM", "SINCE", "UNTIL", "NOTE"]
    return table(page, heads, [_allocation(v, page) for v in a.allocations], {"bound": "green", "releasing": "yellow"})


def _allocation(v: AllocationView, page: Page) -> list[str]:
    when = page.moment(v.until) if v.until is not None else "no end" if v.for_ever else "-"
    note = "its GPU is gone" if v.lost else v.reason
    return [v.user, v.container, ",".join(v.slots), v.claim.value, page.age(v.since), when, note]


def images(i: ImageList, page: Page) -> str:
    """Images, one's own first."""
    if not i.images:
        return "no images; an operator can add some with docker pull\n"
    rows = [
        [v.name, "yours" if v.own else "local", size(v.size_bytes // 2**20) if v.size_bytes else ""] for v in i.images
    ]
    return table(page, ["IMAGE", "FROM", "SIZE"], rows, {"yours": "green"})


def operations(o: OperationList, page: Page) -> str:
    """Operations, a line each."""
    if not o.operations:
        return "no operations in the last day\n"
    return "".join([container.operation(v, page) for v in o.operations])


def events(e: Events, page: Page) -> str:
    """What happened, a line each, or the counts."""
    if e.counts is not None:
        return table(page, ["COUNT", "EVENT"], [[str(n), name] for name, n in e.counts.items()], {})
    return past.lines(e.events, page) or "nothing happened\n"


def story(s: Story, page: Page) -> str:
    """How it came to be, then how it is."""
    now = "".join([f"{page.paint('bold', 'now')}  {clean(line)}\n" for line in s.now])
    return past.lines(s.events, page) + now


def version(v: Version, _page: Page) -> str:
    """Which version, in a line."""
    beside = [f"engine {clean(v.engine)}"] if v.engine else []
    beside += [f"driver {clean(v.driver)}"] if v.driver else []
    return f"ds01d {v.version}{' (' + ', '.join(beside) + ')' if beside else ''}\n"


def _of(have: int, most: int | None) -> str:
    return f"{have}" if most is None else f"{have} of {most}"
