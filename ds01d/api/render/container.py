"""Containers in words: the list, what came of a request, and the reasons behind one."""

from ds01d.api.handlers.container import ContainerList, Outcome
from ds01d.api.render.page import Page, clean, table
from ds01d.core.views.containers import ContainerStatus, ContainerView, WhyView
from ds01d.core.views.operations import OperationView

_COLOURS = {
    ContainerStatus.RUNNING.value: "green",
    ContainerStatus.STARTING.value: "green",
    ContainerStatus.STOPPING.value: "yellow",
    ContainerStatus.CREATING.value: "yellow",
    ContainerStatus.REMOVING.value: "yellow",
    ContainerStatus.PARKED.value: "dim",
    ContainerStatus.FROZEN.value: "red",
}


def listing(shown: ContainerList, page: Page) -> str:
    """The table of containers."""
    if not shown.containers:
        if shown.all:
            return "no containers\n"
        return "no containers; make one with container-create NAME IMAGE\n"
    heads = ["NAME", "STATUS", "GPU(S)", "IMAGE", "AGE", "UNTIL"]
    rows = [_row(c, page) for c in shown.containers]
    if shown.all:
        heads = ["USER", *heads]
        rows = [[c.user, *row] for c, row in zip(shown.containers, rows, strict=True)]
    if shown.wide:
        heads += ["STARTED", "ENDED", "EXIT", "ID", "NOTES"]
        rows = [[*row, *_wide(c, page)] for c, row in zip(shown.containers, rows, strict=True)]
    return table(page, heads, rows, _COLOURS)


def _row(c: ContainerView, page: Page) -> list[str]:
    slots = ",".join(c.slots) or "-"
    return [c.name, c.status.value, slots, c.image, page.age(c.created_at), until(c, page)]


def _wide(c: ContainerView, page: Page) -> list[str]:
    return [
        page.moment(c.started_at) if c.started_at else "-",
        page.moment(c.finished_at) if c.finished_at and c.status is not ContainerStatus.RUNNING else "-",
        str(c.exit_code) if c.exit_code is not None and c.status is not ContainerStatus.RUNNING else "-",
        (c.engine_id or "-")[:12],
        "; ".join(c.notes),
    ]


def until(c: ContainerView, page: Page) -> str:
    """Until when it keeps its slots."""
    if c.releasing:
        return "being released"
    if c.until is not None:
        return page.moment(c.until)
    return "no end" if c.for_ever else "-"


def outcome(o: Outcome, page: Page) -> str:
    """One or two lines: what came of it, the GPU, until when it is held, and what to type next."""
    if o.would is not None:
        return "\n".join([clean(line) for line in o.would] or ["would change nothing"]) + "\n"
    name, whose = clean(o.name), "" if o.user == page.me else f" --user {clean(o.user)}"
    if o.operation is not None and o.operation.finished_at is None:
        return operation(o.operation, page)
    slots = ",".join(o.container.slots) if o.container is not None else ""
    freed = _given_back(o)
    match o.verb:
        case "create":
            return f"{name} is made{_with(o, slots, page)}\nstart it and open a shell: container-run {name}{whose}\n"
        case "start":
            on = f" on GPU {slots}" if slots else ""
            return f"{name} runs{on}\nopen a shell in it: container-run {name}{whose}\n"
        case "stop":
            return _stopped(o, name, whose, slots, page)
        case "leave":
            return _left(o, name, whose, slots, page)
        case "remove":
            return f"{name} is removed{freed}\n"
        case "release":
            return f"{name} is parked{freed}; its files are kept, the next start asks for a GPU anew\n"
        case _:
            return f"the record of {name} is taken up again\n"


def _given_back(o: Outcome) -> str:
    freed = f"; GPU {','.join(o.freed)} is free again" if o.freed else ""
    return freed + (f"; GPU {','.join(o.gone)} is gone" if o.gone else "")


def _with(o: Outcome, slots: str, page: Page) -> str:
    if not slots or o.container is None:
        return ", without a GPU"
    return f", with GPU {slots}{_held(o.container, page)}"


def _held(c: ContainerView, page: Page) -> str:
    if c.until is not None:
        return f", held until {page.moment(c.until)}"
    return ", held without an end" if c.for_ever else ""


def _left(o: Outcome, name: str, whose: str, slots: str, page: Page) -> str:
    if o.container is None:
        return f"{name} is gone\n"
    if o.container.status.value == "running":
        return f"{name} goes on: something still runs in it\nstop it: container-stop {name}{whose}\n"
    return _stopped(o, name, whose, slots, page)


def _stopped(o: Outcome, name: str, whose: str, slots: str, page: Page) -> str:
    if o.freed or o.gone:
        return f"{name} is stopped and parked{_given_back(o)}\n"
    if not slots or o.container is None:
        return f"{name} is stopped\n"
    reader = "you" if o.user == page.me else clean(o.user)
    until_when = " without an end" if o.container.for_ever else ""
    if o.container.until is not None:
        until_when = f" until {page.moment(o.container.until)}"
    return (
        f"{name} is stopped; GPU {slots} is held for {reader}{until_when}\n"
        f"free it now: container-stop {name}{whose} --release\n"
    )


def why(w: WhyView, page: Page) -> str:
    """Reasons, deadlines, and ways on."""
    c = w.container
    lines = [f"{clean(c.name)}: {page.paint(_COLOURS.get(c.status.value, 'bold'), c.status.value)}{_since(c, page)}"]
    lines += [f"  {_by_whom(clean(reason), page)}" for reason in w.reasons]
    for deadline in w.deadlines:
        when = page.moment(deadline.at) if deadline.at is not None else "never"
        lines.append(f"  {when}: {clean(deadline.what)}")
    if w.next_steps:
        lines.append("you can: " + "  or  ".join([clean(step) for step in w.next_steps]))
    return "\n".join(lines) + "\n"


def _since(c: ContainerView, page: Page) -> str:
    at = {
        ContainerStatus.CREATED: c.created_at,
        ContainerStatus.RUNNING: c.started_at,
        ContainerStatus.STOPPED: c.finished_at,
        ContainerStatus.PARKED: c.finished_at or c.created_at,
    }.get(c.status)
    word = "at" if c.status is ContainerStatus.CREATED else "since"
    return f" {word} {page.moment(at)}" if at else ""


def _by_whom(reason: str, page: Page) -> str:
    return f"{reason.removesuffix(page.me)}you" if reason.endswith(f" by {page.me}") else reason


def operation(o: OperationView, page: Page) -> str:
    """One operation in a line."""
    what = f"{o.verb} of {clean(o.container)}"
    if o.failure is not None:
        return f"operation {o.id}: the {what} failed: {clean(o.failure.message)}\n"
    if o.finished_at is None:
        stage = f" ({clean(o.stage)})" if o.stage else ""
        return f"operation {o.id}: the {what} goes on{stage}, asked for {page.away(o.created_at)}\n"
    return f"operation {o.id}: {clean(o.container)} was {clean(o.outcome)} {page.away(o.finished_at)}\n"
