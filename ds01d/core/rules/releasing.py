"""Slots are taken back, and are free only when it is proved that nobody can use them.

The order of things is the proof. First the grant goes, then the CDI spec: from then on the guard lets no start through.
Only then it is looked: (a) the container's cgroup is empty, (b) the engine that made it says that it does not run, (c)
NVML shows no process and no memory of it on the slots. The engine's runtime puts a new process into its cgroup *before*
the guard reads the grant, and we remove the grant *before* we read the cgroup. Whatever the order in which the two
meet, either the guard finds the grant gone, or we find the process. (b) only guards against a wrong cgroup path, and
(c) against what the driver still holds.

So a look counts only if it was ordered after the withdrawal was answered. A container has one order outstanding at a
time, and a look that comes back while a permission may be there is thrown away: every look judged in here counts. A
listing proves nothing, silence proves nothing, and another engine's 404 proves nothing. What a restarted daemon knew of
a withdrawal is forgotten: it withdraws again, then looks.
"""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core.events import Looked
from ds01d.core.moves import (
    back_off,
    bind,
    engine_failure,
    fail,
    freed,
    release,
    seen_running,
    slot_names,
)
from ds01d.core.placing import left_there
from ds01d.core.tx import Tx
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, Permission, Phase, Then
from ds01d.model.facts import CgroupStatus, EngineStatus, Look, SlotSeen
from ds01d.model.ids import SlotId
from ds01d.model.operation import Verb

#: How often a slot is asked about on which only NVML still shows something; seconds.
LINGERING_ASKED_S = 2.0
#: After which such a slot is drained and the operators are told; seconds.
LINGERING_MAX_S = 600.0
#: How the reason of a container begins whose slots are not proved unused yet.
_WAITING = "waiting for proof"


def hold_over(tx: Tx, a: Allocation) -> None:
    """The time in which its owner could have come back is up."""
    c = tx.state.containers.get(a.container)
    if a.claim is not Claim.HELD or c is None or c.phase is not Phase.STOPPED:
        return
    release(tx, a, "hold over")


def withdraw_failed(tx: Tx, c: Container, message: str) -> None:
    """What cannot be withdrawn cannot be released: again, and no look before it went."""
    attempts = c.attempts + 1
    tx.change(c, attempts=attempts, retry_at=tx.now + back_off(attempts - 1))
    if attempts == 3:  # noqa: PLR2004  # the patience of every retry
        tx.emit(do.Alert(container=c.id, text=f"cannot withdraw the permission of {c.name}: {message}"))


def looked(tx: Tx, c: Container, a: Allocation, e: Looked) -> None:
    """The answer to a look; one that was ordered while a permission was there proves nothing."""
    look = e.look
    if c.permission is not Permission.ABSENT:
        return
    stopped = {EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED}
    if c.engine_id is None and look.engine_id is not None:
        # Made after all, and to be removed; not one that has run since the state was saved that was restored.
        ran = look.status is not EngineStatus.CREATED
        tx.change(c, engine_id=look.engine_id, phase=Phase.STOPPED if ran else c.phase)
    elif look.status is EngineStatus.RUNNING:
        _running(tx, c, a, look)
    elif look.ghost:
        tx.change(c, ghost=e.order)
        tx.emit(
            do.Alert(container=c.id, text=f"{c.name} of {c.user} runs on while the engine says {look.status}: ended")
        )
    elif look.status in stopped or (look.status is EngineStatus.STRANGE and c.engine_gone):
        _not_running(tx, c, a, look)
    else:
        _again(tx, c, look.trouble or f"the engine is {look.status}")


def _running(tx: Tx, c: Container, a: Allocation, look: Look) -> None:
    if look.cgroup is CgroupStatus.EMPTY or look.init_alive is False:
        assert c.engine_id is not None
        tx.emit(do.CutSessions(engine_id=c.engine_id))
        _again(tx, c, "the engine says running, but nobody is there")
        return
    if c.phase is Phase.REMOVING:
        words = f"{c.name} was started from outside before its removal"
        fail(tx, c, engine_failure("wrong_phase", words, "stop it, then remove it again"), Verb.REMOVE)
    failure = engine_failure("wrong_phase", f"{c.name} was started from outside before its slots were released")
    fail(tx, c, failure, Verb.RELEASE)
    bind(tx, a)
    c = seen_running(tx, c, look, "started from outside")
    tx.change(c, then=Then.HOLD)
    tx.emit(do.Tell(uid=c.uid, container=c.id, text=f"{c.name} was started from outside and keeps its GPU"))


def _again(tx: Tx, c: Container, why: str) -> None:
    tx.change(c, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts), why=f"{_WAITING}: {why}")


def _not_running(tx: Tx, c: Container, a: Allocation, look: Look) -> None:
    # What no engine was ever known to have made had no permission either: on an operator's word, NVML has to do.
    nameless = c.engine_gone and c.engine_id is None and look.cgroup is CgroupStatus.UNKNOWN
    if look.cgroup is not CgroupStatus.EMPTY and not nameless:
        _again(
            tx, c, "its processes are not gone" if look.cgroup is CgroupStatus.OCCUPIED else "its cgroup cannot be read"
        )
        return
    remains = remaining(tx, a.slots, look)
    if remains is not None:
        _lingering(tx, c, a, remains, known=look.slots is not None)
        return
    for slot_id in a.slots:
        slot = tx.state.slots.get(slot_id)
        if slot is not None and slot.drained is not None and slot.drained.startswith("lingering"):
            tx.put(tx.state.slots, slot.id, replace(slot, drained=None))
    freed(tx, a)
    gone = look.status in {EngineStatus.ABSENT, EngineStatus.STRANGE}
    fields: dict[str, object] = {"attempts": 0, "retry_at": None, "engine_gone": False}
    if c.phase is Phase.REMOVING and c.why.startswith(_WAITING):
        fields |= {"why": a.reason}  # the wait is over, and what it is removed for is told once it is gone
    if gone and c.blocks:
        # Other slots of its have yet to be proved unused, for which its id and the operator's word are needed.
        fields |= {"phase": Phase.REMOVING, "engine_gone": c.engine_gone}
    elif gone:
        fields |= {"phase": Phase.REMOVING, "engine_id": None}
        if look.status is EngineStatus.ABSENT and c.phase is not Phase.REMOVING:
            fields |= {"why": "removed from outside"}
    elif c.phase is Phase.STOPPED:
        fields |= {"why": f"parked: {a.reason}"}
        tx.emit(do.Tell(uid=c.uid, container=c.id, text=f"{c.name} is parked: {_came_of(tx, a.slots)}"))
    tx.change(c, **fields)


def _came_of(tx: Tx, slots: tuple[SlotId, ...]) -> str:
    """What is said of slots that nobody holds any more; what is gone from the machine is nobody's to have."""
    there = tuple([s for s in slots if (slot := tx.state.slots.get(s)) is not None and not slot.lost])
    gone = tuple([s for s in slots if s not in there])
    said = [f"GPU {slot_names(tx, gone)} is gone"] if gone else []
    return "; ".join([*said, f"GPU {slot_names(tx, there)} is free again"] if there else said)


def remaining(tx: Tx, slots: tuple[SlotId, ...], look: Look) -> str | None:
    """What is still there on these slots, in words; None: nothing, and that was seen."""
    if not slots:
        return None
    there = [s for s in slots if (slot := tx.state.slots.get(s)) is not None and not slot.lost]
    if not there:
        return None
    if look.slots is None:
        return look.trouble or "NVML does not answer"
    seen = {s.slot: s for s in look.slots}
    for slot_id in there:
        words = _left(tx, slot_id, seen.get(slot_id))
        if words is not None:
            return words
    return None


def _left(tx: Tx, slot_id: SlotId, seen: SlotSeen | None) -> str | None:
    slot = tx.state.slots.get(slot_id)
    if slot is None or (seen is not None and seen.lost):
        return None
    if seen is None or seen.trouble is not None:
        return f"{slot.name} cannot be read{f': {seen.trouble}' if seen is not None else ''}"
    if seen.pids:
        return f"lingering on {slot.name}: process {', '.join(map(str, seen.pids[:4]))}"
    left = left_there(slot, seen.used_mib, net_of_reserved=seen.net_of_reserved)
    if left is None:
        return f"the memory of {slot.name} cannot be read"
    return f"lingering on {slot.name}: {left} MiB" if left else None


def _lingering(tx: Tx, c: Container, a: Allocation, remains: str, *, known: bool) -> None:
    if not known:
        _again(tx, c, remains)
        return
    since = a.lingering_since if a.lingering_since is not None else tx.now
    tx.claim(a, lingering=remains, lingering_since=since)
    tx.change(c, retry_at=tx.now + LINGERING_ASKED_S, why=f"{_WAITING}: {remains}")
    if tx.now - since < LINGERING_MAX_S:
        return
    for slot_id in a.slots:
        slot = tx.state.slots.get(slot_id)
        if slot is not None and slot.drained is None:
            tx.put(tx.state.slots, slot.id, replace(slot, drained=remains))
            words = f"{remains} for 10 min after {c.user}'s {c.name}; see who holds it with `fuser -v /dev/nvidia*`"
            tx.emit(do.Alert(container=c.id, text=words))


def unblocked(tx: Tx, c: Container, look: Look) -> None:
    """Slots that a leftover permission named come free by the same proof."""
    if c.permission is Permission.UNSURE:
        return  # it has to go since this look began, which so proves nothing
    stopped = {EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED}
    gone = look.status is EngineStatus.STRANGE and c.engine_gone
    proved = (look.status in stopped or gone) and look.cgroup is CgroupStatus.EMPTY
    if not proved:
        tx.change(c, retry_at=tx.now + back_off(c.attempts), attempts=c.attempts + 1)
        return
    remains = remaining(tx, c.blocks, look)
    if remains is not None:
        tx.change(c, retry_at=tx.now + LINGERING_ASKED_S, why=f"{_WAITING}: {remains}")
        return
    gone = gone or look.status is EngineStatus.ABSENT
    over = gone and c.phase is Phase.REMOVING and tx.state.allocation_of(c.id) is None
    engine_id = None if over else c.engine_id
    tx.change(c, blocks=(), engine_id=engine_id, attempts=0, retry_at=None)
