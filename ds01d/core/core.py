"""The mind's one door: an event goes in, changes and effects come out. Pure, synchronous, and told the time.

An event that concerns many records is taken in steps, each a transaction of its own, so that a fault in handling one
record does not touch the others. A refused request changed nothing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import assert_never

import msgspec

from ds01d.core import events as ev
from ds01d.core.effects import Effect
from ds01d.core.moves import slot_names
from ds01d.core.rules import creating, ending, inventory, recalling, reconciling, releasing, starting, tending
from ds01d.core.settling import moved, numbers, reached, settle
from ds01d.core.state import State
from ds01d.core.tx import Change, Tx
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, OrderName, Permission, Phase
from ds01d.model.errors import Refused
from ds01d.model.facts import CgroupStatus, EngineStatus
from ds01d.model.ids import AllocationId, ContainerId, OperationId
from ds01d.model.operation import Verb

#: One transaction's work; gives an operation where a request became one.
Step = Callable[[Tx], OperationId | None]


class Outcome(msgspec.Struct, kw_only=True):
    """What came of an event."""

    changes: list[Change] = []
    effects: list[Effect] = []
    #: The operation that a request became.
    operation: OperationId | None = None
    #: What a dry run would have done, in sentences.
    preview: tuple[str, ...] = ()
    refused: Refused | None = None
    #: Faults of ours, with the record that was being handled.
    faults: list[tuple[ContainerId | None, Exception]] = []


def handle(state: State, event: ev.Event, now: float) -> Outcome:
    """Take one event in. Never awaits, never raises; a fault of ours is in the outcome."""
    outcome = Outcome()
    for container, step in _steps(state, event, now):
        tx = Tx(state, now)
        try:
            outcome.operation = step(tx)
            for touched in _touched(tx, container):
                settle(tx, touched)
            if getattr(event, "dry_run", False):
                outcome.preview = _preview(tx, outcome.operation)
                outcome.operation = None
                tx.rollback()
                continue
            changes = tx.commit()
        except Refused as no:
            tx.rollback()
            outcome.refused = no
        except Exception as fault:  # noqa: BLE001  # a bug in a rule is contained: undone here, logged by the loop
            tx.rollback()
            outcome.faults.append((container, fault))
        else:
            outcome.changes.extend(changes)
            outcome.effects.extend(tx.effects)
    return outcome


def _touched(tx: Tx, container: ContainerId | None) -> list[ContainerId]:
    """The containers whose record or allocation this transaction changed, in the order of their change."""
    found: dict[ContainerId, None] = {} if container is None else {container: None}
    for old, new in tx.touched():
        match new if new is not None else old:
            case Container(id=cid) | Allocation(container=cid):
                found[cid] = None
            case _:
                pass
    return list(found)


def _preview(tx: Tx, operation: OperationId | None) -> tuple[str, ...]:
    op = tx.state.operations.get(operation) if operation is not None else None
    if op is None:
        return ()
    c, a = tx.state.containers.get(op.container), tx.state.allocation_of(op.container)
    name, slots = op.container_name, slot_names(tx, a.slots) if a is not None else ""
    on, back = (f" on GPU {slots}", f", and give back GPU {slots}") if a is not None else ("", "")
    ends = c is not None and c.phase is Phase.STOPPING
    match op.verb:
        case Verb.CREATE:
            return (f"would create {name}{on or ', without a GPU'}",)
        case Verb.START if c is not None and c.phase is Phase.RUNNING:
            return (f"would change nothing: {name} runs already",)
        case Verb.START:
            return (f"would start {name}{on}",)
        case Verb.STOP if ends:
            return (f"would stop {name}" + (f", and hold GPU {slots} for a while" if a is not None else ""),)
        case Verb.RELEASE if ends or a is not None:
            return (f"would {'stop' if ends else 'park'} {name}{back}",)
        case Verb.STOP | Verb.RELEASE:
            return (f"would change nothing: {name} is stopped" + (f", and keeps GPU {slots}" if a is not None else ""),)
        case Verb.REMOVE:
            kept = f"what was installed or written in {name} outside /workspace goes with it"
            return (f"would {'stop and ' if ends else ''}remove {name}{back}", kept)


def _steps(state: State, event: ev.Event, now: float) -> Iterator[tuple[ContainerId | None, Step]]:
    """The transactions that an event means. `match` shows every place to think when an event is added."""
    match event:
        case ev.CreateRequested():
            yield None, lambda tx: creating.requested(tx, event)
        case ev.StartRequested():
            yield event.container, lambda tx: starting.requested(tx, event)
        case ev.StopRequested():
            yield event.container, lambda tx: ending.stop_requested(tx, event)
        case ev.RemoveRequested():
            yield event.container, lambda tx: ending.remove_requested(tx, event)
        case ev.ReleaseRequested():
            yield event.container, lambda tx: ending.release_requested(tx, event)
        case ev.ThawRequested():
            yield event.container, _do(lambda tx: tending.thawed(tx, event))
        case ev.Done() | ev.Failed() | ev.Uncertain() | ev.Looked():
            yield event.container, _do(lambda tx: _answered(tx, event))
        case ev.EngineHinted():
            meant = state.containers.one("engine_id", event.engine_id)
            if meant is not None:
                yield meant.id, _do(partial(reconciling.doubted, container=meant.id))
            else:
                yield None, _do(lambda tx: reconciling.strange(tx, event))
        case ev.ShellsLeft():
            yield None, _do(lambda tx: ending.shells_left(tx, event))
        case ev.Relisted():
            yield from _relisted(state, event)
        case ev.EngineSilent():
            yield None, _do(lambda tx: reconciling.silent(tx, event))
        case ev.EngineAnswered():
            yield from _engine_answered(state, event)
        case ev.Probed():
            yield from _probed(state, event)
        case ev.Blinded():
            yield None, _do(lambda tx: inventory.blinded(tx, event))
        case ev.ConfigLoaded():
            yield None, _do(lambda tx: tx.govern(event.policy))
        case ev.RealityObserved():
            yield from _recall(state, event)
        case ev.Woke():
            yield from _due(state, now)
        case ev.Stumbled():
            yield None, _do(lambda tx: tending.stumbled(tx, event))
        case _:
            assert_never(event)


def _do(rule: Callable[[Tx], object]) -> Step:
    def step(tx: Tx) -> None:
        rule(tx)

    return step


# ---- events of many records


def _relisted(state: State, e: ev.Relisted) -> Iterator[tuple[ContainerId | None, Step]]:
    for doubtful in reconciling.doubtful(state, e):
        yield doubtful, _do(partial(reconciling.doubted, container=doubtful, at_once=False))
    for torn in reconciling.torn(state, e):
        yield torn, _do(partial(reconciling.write_again, container=torn))
    yield None, _do(lambda tx: inventory.foreign(tx, e.foreign))
    for listed in e.containers:
        if not state.containers.count("engine_id", listed.engine_id):
            yield None, _do(partial(recalling.orphan, x=listed))
    yield None, _do(lambda tx: recalling.unaccounted(tx, e.containers))


def _engine_answered(state: State, e: ev.EngineAnswered) -> Iterator[tuple[ContainerId | None, Step]]:
    yield None, _do(lambda tx: reconciling.answered(tx, e))
    if e.restarted:
        for c in tuple(state.containers):
            yield c.id, _do(partial(reconciling.interrupted, container=c.id))


def _probed(state: State, e: ev.Probed) -> Iterator[tuple[ContainerId | None, Step]]:
    before = numbers(state)
    yield None, _do(lambda tx: inventory.probed(tx, e))
    if numbers(state) != before:
        for a in tuple(state.allocations):
            yield a.container, _do(partial(_anew_where_moved, a=a))


def _anew_where_moved(tx: Tx, a: Allocation) -> None:
    """Other devices stand behind its slots now: the permission is withdrawn and given anew (move 23).

    Slots that it gets at by a number of old are nobody's until that permission is gone and it is proved not to run.
    """
    c = tx.state.containers.get(a.container)
    if c is None:
        return
    others = reached(tx.state, c, a)
    if not set(others) <= set(c.blocks):
        c = tx.change(c, blocks=tuple(sorted({*c.blocks, *others})), look=True)
    if moved(tx.state, c, a) or (others and c.permission is not Permission.ABSENT):
        tx.change(c, permission=Permission.UNSURE, generation="", withdraw=True, retry_at=None)


def _recall(state: State, e: ev.RealityObserved) -> Iterator[tuple[ContainerId | None, Step]]:
    yield None, _do(lambda tx: _engine_seen(tx, e))
    for c in tuple(state.containers):
        yield c.id, _do(partial(recalling.recalled, c=c, e=e))
    for seen in e.permissions:
        if not state.containers.count("key", seen.key):
            yield None, _do(partial(recalling.leftover, seen=seen, listed=e.listed))
    yield None, _do(lambda tx: inventory.foreign(tx, e.foreign))
    for listed in e.listed:
        if not state.containers.count("engine_id", listed.engine_id):
            yield None, _do(partial(recalling.orphan, x=listed))
    yield None, _do(lambda tx: _recalled(tx, e))


def _engine_seen(tx: Tx, e: ev.RealityObserved) -> None:
    tx.state.settled = True
    if e.engine is not None:
        reconciling.answered(tx, ev.EngineAnswered(engine=e.engine, restarted=False))


def _recalled(tx: Tx, e: ev.RealityObserved) -> None:
    tx.state.boot_id = e.boot_id
    recalling.unaccounted(tx, e.listed, at_once=True)


def _due(state: State, now: float) -> Iterator[tuple[ContainerId | None, Step]]:
    """One record at a time; the loop wakes again while more is due."""
    found = state.pop_due(now)
    if found is None:
        return
    table, key = found
    match table:
        case "containers":
            c = state.containers.rows[ContainerId(key)]
            yield c.id, _do(partial(tending.container_due, c=c))
        case "allocations":
            a = state.allocations.rows[AllocationId(key)]
            yield a.container, _do(partial(releasing.hold_over, a=a))
        case _:
            yield None, _do(lambda tx: tending.operation_due(tx, OperationId(key)))


# ---- answers


def _answered(tx: Tx, e: ev.Answer) -> None:
    """The one order that was outstanding is settled; a late answer of an earlier one changes nothing."""
    c = tx.state.containers.get(e.container)
    if c is None or c.order is None or c.order.id != e.order:
        return
    name = c.order.name
    if isinstance(e, ev.Uncertain):
        if not (e.returned and name in {OrderName.PERMIT, OrderName.WITHDRAW}):
            if name is OrderName.START:
                c = starting.unanswered(tx, c, e)
            tending.overdue(tx, c)
            return
        e = ev.Failed(container=e.container, order=e.order, kind="engine", message=e.message)
    c = tx.change(c, order=None, confused=0)
    match e:
        case ev.Looked():
            _looked(tx, c, e)
        case ev.Done():
            _done(tx, c, name, e)
        case ev.Failed():
            _failed(tx, c, name, e)
        case _:
            assert_never(e)


def _done(tx: Tx, c: Container, name: OrderName, e: ev.Done) -> None:
    match name:
        case OrderName.CREATE:
            creating.created(tx, c, e)
        case OrderName.PERMIT:
            tx.change(c, permission=Permission.PRESENT, attempts=0)
        case OrderName.WITHDRAW:
            tx.change(c, permission=Permission.ABSENT, withdraw=False, attempts=0)
        case OrderName.START | OrderName.KILL_GHOST | OrderName.REMOVE:
            # What the engine has removed may still run without its knowledge: the look is the proof.
            tx.change(c, look=True, ghost=None)
        case OrderName.STOP | OrderName.KILL:
            ending.stop_answered(tx, c)
        case OrderName.LOOK:
            raise AssertionError("a look is answered by what was seen")
        case _:
            assert_never(name)


def _failed(tx: Tx, c: Container, name: OrderName, e: ev.Failed) -> None:
    match name:
        case OrderName.CREATE:
            creating.failed(tx, c, e)
        case OrderName.PERMIT:
            starting.permit_failed(tx, c, e)
        case OrderName.WITHDRAW:
            releasing.withdraw_failed(tx, c, e.message)
        case OrderName.START:
            starting.failed(tx, c, e)
        case OrderName.STOP | OrderName.KILL:
            ending.stop_failed(tx, c, e)
        case OrderName.REMOVE:
            ending.remove_failed(tx, c, e)
        case OrderName.LOOK | OrderName.KILL_GHOST:
            tending.try_again(tx, c)
        case _:
            assert_never(name)


def _looked(tx: Tx, c: Container, e: ev.Looked) -> None:
    """What was seen goes to the rule that waits for it."""
    a = tx.state.allocation_of(c.id)
    look = e.look
    still = look.cgroup is CgroupStatus.EMPTY and look.status in {EngineStatus.CREATED, EngineStatus.STOPPED}
    if a is not None and a.claim is Claim.RELEASING:
        releasing.looked(tx, c, a, e)
        _after_release(tx, c)
    elif c.phase is Phase.CREATING:
        creating.looked(tx, c, look)
    elif c.phase is Phase.STOPPING and look.status is EngineStatus.RUNNING:
        ending.still_running(tx, c, look)
    elif c.phase is Phase.STARTING and still and look.started_at <= c.started_at:
        starting.not_running(tx, c, look)
        _unblock(tx, c, e)
    else:
        reconciling.looked(tx, c, a, e)
        _unblock(tx, c, e)


def _unblock(tx: Tx, c: Container, e: ev.Looked) -> None:
    now = tx.state.containers.get(c.id)
    if now is not None and now.blocks and now.ghost is None:
        releasing.unblocked(tx, now, e.look)


def _after_release(tx: Tx, c: Container) -> None:
    now = tx.state.containers.get(c.id)
    if now is not None and tx.state.allocation_of(c.id) is None:
        starting.waited(tx, now)
