"""A failing history, told so that a person can follow it."""

import traceback

import msgspec

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.state import State
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container
from tests.sim.ending import leave_alone
from tests.sim.play import Play
from tests.sim.swarm import Failure

_HIDDEN = {"id", "uid", "gid", "user", "group", "spec", "created_at", "key"}


def tell(failure: Failure, *, made: type[Play] = Play) -> None:
    """Play it again, aloud."""
    print(failure.setup)
    play = made(failure.setup)
    quiet = play.judge.watch

    def watch(state: State, event: ev.Event, outcome: Outcome) -> None:
        if outcome.changes or outcome.effects or not isinstance(event, ev.Probed | ev.Relisted | ev.Woke):
            print(f"      {_event(event)}")
        if outcome.refused is not None:
            print(f"        refused: {outcome.refused.message}")
        for change in outcome.changes:
            print(f"        {change.id} {_change(change.old, change.new)}")
        for effect in outcome.effects:
            print(f"        → {_effect(effect)}")
        quiet(state, event, outcome)

    play.judge.watch = watch  # type: ignore[method-assign]  # the same judge, with a voice
    try:
        for name, n in failure.history:
            subjects = play.moves[name].subjects()
            if subjects:
                print(f"{play.machine.now % 100000:9.1f} {name} {_subject(subjects[n % len(subjects)])}")
                play.do(name, n)
        print("left alone")
        leave_alone(play)
    except Exception:  # noqa: BLE001  # this is what was looked for
        traceback.print_exc(limit=-6)


def _subject(subject: object) -> str:
    for word in ("id", "engine_id", "container", "made", "order"):
        value = getattr(subject, word, None)
        if isinstance(value, str):
            return f"{getattr(subject, 'kind', '')} {value}"
        if value is not None:
            return _effect(value) if isinstance(value, do.Order) else str(getattr(value, "id", value))
    return "" if subject is None or type(subject).__name__ == "Daemon" else str(subject)


def _event(event: ev.Event) -> str:
    match event:
        case ev.Probed():
            return "Probed"
        case ev.Looked(look=look):
            shown = {k: v for k, v in msgspec.structs.asdict(look).items() if v not in (None, 0.0, False)}
            return f"Looked {event.container} {shown}"
        case _:
            fields = {k: v for k, v in msgspec.structs.asdict(event).items() if k not in {"actor", "owner", "spec"}}
            return f"{type(event).__name__} {fields}"


def _change(old: object, new: object) -> str:
    if new is None:
        return "gone"
    fields = msgspec.structs.asdict(new)  # type: ignore[arg-type]  # records are structs
    before = msgspec.structs.asdict(old) if old is not None else {}  # type: ignore[arg-type]  # the same
    words = [
        f"{k}={v.name if hasattr(v, 'deadline') and v is not None else v}"
        for k, v in fields.items()
        if before.get(k) != v and not (old is None and (k in _HIDDEN or v in (None, False, 0.0, "", ())))
    ]
    kind = "container" if isinstance(new, Container) else "allocation" if isinstance(new, Allocation) else ""
    return f"{kind} {' '.join(words)}"


def _effect(effect: object) -> str:
    hidden = {"timeout_s", "spec", "mounts", "uid", "gid", "cgroup_parent", "cgroup", "user", "key"}
    fields = {k: v for k, v in msgspec.structs.asdict(effect).items() if k not in hidden}  # type: ignore[arg-type]  # structs
    return f"{type(effect).__name__} {' '.join(map(str, fields.values()))}"
