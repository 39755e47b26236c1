"""What is written down for people about each change: lines for events.jsonl and for the allocation log.

A projection of the change list, made when the change is made and let go when it is saved. Never read back as truth.
"""

from collections.abc import Iterable

from ds01d.core.effects import Alert, Effect, Tell
from ds01d.core.events import CreateRequested, Event, StartRequested
from ds01d.core.state import State
from ds01d.core.tx import Change
from ds01d.model.allocation import NEVER, Allocation, Claim
from ds01d.model.chronicle import AllocationLine, EventLine
from ds01d.model.container import Container, Phase
from ds01d.model.errors import Denied, Refused
from ds01d.model.gpu import Gpu, Slot
from ds01d.model.ids import ContainerId, SlotId
from ds01d.model.operation import Operation, OperationState

Line = EventLine | AllocationLine

_PHASES = {
    Phase.STARTING: "container.starting",
    Phase.RUNNING: "container.started",
    Phase.STOPPING: "container.stopping",
    Phase.REMOVING: "container.removing",
}
_CLAIMS = {
    Claim.RESERVED: ("gpu.allocated", "ALLOCATED"),
    Claim.HELD: ("gpu.held", "HELD"),
    Claim.BOUND: ("gpu.bound", "BOUND"),
    Claim.RELEASING: ("gpu.releasing", "RELEASING"),
}


def lines_of(state: State, changes: Iterable[Change], effects: Iterable[Effect], now: float) -> list[Line]:
    """The lines that a commit's changes and notes make."""
    lines: list[Line] = []
    for change in changes:
        match change.new if change.new is not None else change.old:
            case Container():
                lines += _container(change, now)
            case Allocation():
                lines += _allocation(state, change, now)
            case Operation():
                lines += _operation(change, now)
            case Slot() | Gpu():
                lines += _hardware(change, now)
            case _:
                pass
    for effect in effects:
        match effect:
            case Tell(uid=uid, container=container, text=text):
                lines.append(_event(now, "user.told", _user(state, container) or str(uid), {"text": text}))
            case Alert(container=container, text=text):
                user = _user(state, container) if container is not None else None
                lines.append(_event(now, "maintenance.alert", user, {"text": text}))
            case _:
                pass
    return lines


def refusal_lines(event: Event, no: Refused, now: float) -> list[Line]:
    """A request that was refused, in full."""
    match event:
        case CreateRequested(actor=actor, name=name, owner=owner):
            user = owner.name
        case StartRequested(actor=actor, container=container):
            user, name = actor.name, str(container)
        case _:
            return []
    reason = f"{no.word} {no.note}".rstrip()
    kind = "auth.denied" if isinstance(no, Denied) else "gpu.rejected"
    details: dict[str, object] = {"kind": no.kind, "message": no.message, "reason": reason, "container": name}
    return [
        EventLine(at=now, event_type=kind, user=user, source=actor.name, details=details),
        AllocationLine(at=now, event="REJECTED", user=user, container=name, slot="-", reason=reason),
    ]


def _event(now: float, event_type: str, user: str | None, details: dict[str, object]) -> EventLine:
    return EventLine(at=now, event_type=event_type, user=user, details=details)


def _user(state: State, container: ContainerId) -> str | None:
    c = state.containers.get(container)
    return c.user if c is not None else None


def _container(change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    if not isinstance(new, Container):
        assert isinstance(old, Container)
        return [_event(now, "container.removed", old.user, {"container": old.name, "id": old.id, "why": old.why})]
    facts: dict[str, object] = {"container": new.name, "id": new.id, "why": new.why}
    if not isinstance(old, Container):
        wants = new.spec.gpus
        asked: dict[str, object] = {"image": new.spec.image, "gpus": 0 if wants is None else wants.count}
        return [_event(now, "container.requested", new.user, facts | asked | _kind(new))]
    lines: list[Line] = []
    if new.phase is not old.phase:
        if new.phase is Phase.STOPPED:
            name = "container.created" if old.phase is Phase.CREATING else "container.stopped"
            facts["exit_code"] = new.exit_code
        else:
            name = _PHASES[new.phase]
        lines.append(_event(now, name, new.user, facts | {"engine_id": new.engine_id}))
    if new.frozen and not old.frozen:
        lines.append(_event(now, "container.frozen", new.user, facts))
    return lines


def _kind(c: Container) -> dict[str, object]:
    wants = c.spec.gpus
    return {} if wants is None else {"gpu_type": wants.kind, "gpu_memory_mib": wants.memory_mib}


def _allocation(state: State, change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    a = new if isinstance(new, Allocation) else old
    assert isinstance(a, Allocation)
    c = state.containers.get(a.container)
    name = c.name if c is not None else "-"
    if not isinstance(new, Allocation):
        parked = c is not None and c.phase is Phase.STOPPED
        events = [("gpu.released", "PARKED" if parked else "RELEASED")]
        reason = a.reason
    elif not isinstance(old, Allocation):
        events, reason = [("gpu.allocated", "ALLOCATED")], c.why if c is not None else ""
    elif new.claim is not old.claim:
        events, reason = [_CLAIMS[new.claim]], new.reason if new.claim is Claim.RELEASING else (c.why if c else "")
    elif new.lost and not old.lost:
        events, reason = [("gpu.lost", "LOST")], "its GPU is gone"
    elif new.lingering_since != old.lingering_since and new.lingering is not None:
        events, reason = [("gpu.lingering", "LINGERING")], new.lingering
    else:
        return []
    until = None if a.deadline is None or a.deadline >= NEVER else a.deadline
    shown = [_slot_name(state, s) for s in a.slots]
    lines: list[Line] = []
    for event_type, word in events:
        details: dict[str, object] = {
            "container": name,
            "id": a.container,
            "slots": shown,
            "gpueq": a.gpueq,
            "reason": reason,
            "until": until,
        }
        lines.append(_event(now, event_type, a.user, details))
        lines += [AllocationLine(at=now, event=word, user=a.user, container=name, slot=s, reason=reason) for s in shown]
    return lines


def _slot_name(state: State, slot_id: SlotId) -> str:
    slot = state.slots.get(slot_id)
    return slot.name if slot is not None else str(slot_id)


def _operation(change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    if isinstance(new, Operation) and new.state is OperationState.FAILED and isinstance(old, Operation):
        failure = new.failure
        words = failure.message if failure is not None else ""
        details: dict[str, object] = {"container": new.container_name, "verb": new.verb, "message": words}
        return [_event(now, "container.failed", None, details)]
    return []


def _hardware(change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    match old, new:
        case (None, Slot() as slot):
            return [_event(now, "gpu.appeared", None, {"slot": slot.name, "id": slot.id})]
        case (Slot() as slot, None):
            return [_event(now, "gpu.vanished", None, {"slot": slot.name, "id": slot.id})]
        case (Slot() as before, Slot() as slot) if before.drained != slot.drained:
            kind = "gpu.undrained" if slot.drained is None else "gpu.drained"
            return [_event(now, kind, None, {"slot": slot.name, "why": slot.drained or before.drained})]
        case (Gpu() as before, Gpu() as gpu) if (before.lost, before.trouble) != (gpu.lost, gpu.trouble):
            facts: dict[str, object] = {"gpu": gpu.index, "lost": gpu.lost, "trouble": gpu.trouble}
            return [_event(now, "gpu.health", None, facts)]
        case _:
            return []
