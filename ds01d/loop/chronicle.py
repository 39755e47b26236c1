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
from ds01d.model.errors import (
    CannotSee,
    Denied,
    FullGpuNotAllowed,
    NoneFree,
    NoSuchSlots,
    QuotaExceeded,
    Refused,
    TooManyPerContainer,
)
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
#: Refusals because of the GPUs that were asked for; any other is about the container.
_OF_GPUS = (CannotSee, FullGpuNotAllowed, NoneFree, NoSuchSlots, QuotaExceeded, TooManyPerContainer)


def lines_of(state: State, changes: Iterable[Change], effects: Iterable[Effect], now: float) -> list[Line]:
    """The lines that a commit's changes and notes make."""
    lines: list[Line] = []
    changes = tuple(changes)
    about = _About(state, changes)
    for change in changes:
        match change.new if change.new is not None else change.old:
            case Container():
                lines += _container(change, now)
            case Allocation():
                lines += _allocation(about, change, now)
            case Operation():
                lines += _operation(about, change, now)
            case Slot() | Gpu():
                lines += _hardware(change, now)
            case _:
                pass
    for effect in effects:
        match effect:
            case Tell(uid=uid, container=container, text=text):
                lines.append(_event(now, "user.told", about.user(container) or str(uid), {"text": text}))
            case Alert(container=container, text=text):
                user = about.user(container) if container is not None else None
                lines.append(_event(now, "maintenance.alert", user, {"text": text}))
            case _:
                pass
    return lines


def refusal_lines(state: State, event: Event, no: Refused, now: float) -> list[Line]:
    """A request that was refused, in full; one that only asked what would be leaves a line only where it was denied."""
    facts: dict[str, object] = {}
    of_gpus = True
    match event:
        case CreateRequested(actor=actor, name=name, owner=owner, spec=spec, dry_run=dry_run):
            user, of_gpus = owner.name, spec.gpus is not None
        case StartRequested(actor=actor, container=container, dry_run=dry_run):
            c = state.containers.get(container)
            # A stranger is told no names, and not by what is written down for him either.
            known = c is not None and (actor.operator or c.uid == actor.uid)
            user, name, facts = actor.name, c.name if c is not None and known else str(container), {"id": container}
        case _:
            return []
    denied = isinstance(no, Denied)
    kind = "auth.denied" if denied else "gpu.rejected" if of_gpus and isinstance(no, _OF_GPUS) else "container.rejected"
    reason = f"{no.word} {no.note}".rstrip()
    facts |= {"kind": no.kind, "message": no.message, "reason": reason, "container": name}
    said = EventLine(at=now, event_type=kind, user=user, source=actor.name, details=facts)
    if dry_run:
        return [said] if denied else []
    return [said, AllocationLine(at=now, event="REJECTED", user=user, container=name, slot="-", reason=reason)]


class _About:
    """The containers that a commit's lines are about, those that went with it among them."""

    def __init__(self, state: State, changes: Iterable[Change]) -> None:
        self.state = state
        self._gone = {c.id: c for change in changes if change.new is None and isinstance(c := change.last, Container)}

    def container(self, container: ContainerId) -> Container | None:
        return self.state.containers.get(container) or self._gone.get(container)

    def user(self, container: ContainerId) -> str | None:
        c = self.container(container)
        return c.user if c is not None else None


def _event(now: float, event_type: str, user: str | None, details: dict[str, object]) -> EventLine:
    return EventLine(at=now, event_type=event_type, user=user, details=details)


def _container(change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    if not isinstance(new, Container):
        last = change.last
        assert isinstance(last, Container)
        return [_event(now, "container.removed", last.user, {"container": last.name, "id": last.id, "why": last.why})]
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


def _allocation(about: _About, change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    a = new if isinstance(new, Allocation) else old
    assert isinstance(a, Allocation)
    c = about.container(a.container)
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
    shown = [_slot_name(about.state, s) for s in a.slots]
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


def _operation(about: _About, change: Change, now: float) -> list[Line]:
    old, new = change.old, change.new
    if isinstance(new, Operation) and new.state is OperationState.FAILED and isinstance(old, Operation):
        failure = new.failure
        words = failure.message if failure is not None else ""
        details: dict[str, object] = {
            "container": new.container_name,
            "id": new.container,
            "verb": new.verb,
            "message": words,
        }
        return [_event(now, "container.failed", about.user(new.container), details)]
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
