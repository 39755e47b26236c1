"""What is to be done next for a container: a pure function of its record, asked after every change.

A container has at most one order outstanding. Nothing queues behind it: when it is answered the record has changed, and
the record says what comes next. So a restarted daemon has nothing to replay, and a request that comes in the middle
only changes where the record wants to go.
"""

from typing import assert_never

from ds01d.core import effects as do
from ds01d.core.state import State
from ds01d.core.tx import Tx
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, OrderName, Outstanding, Permission, Phase, Then
from ds01d.model.errors import WrongPhase
from ds01d.model.ids import ContainerId, EngineId, OrderId, SlotId
from ds01d.model.operation import Failure, Operation, Verb

#: Seconds (lifecycle.md §4).
TIMEOUT_S = {
    OrderName.CREATE: 60.0,
    OrderName.PERMIT: 5.0,
    OrderName.WITHDRAW: 5.0,
    OrderName.START: 60.0,
    OrderName.STOP: 30.0,
    OrderName.KILL: 30.0,
    OrderName.REMOVE: 60.0,
    OrderName.LOOK: 10.0,
    OrderName.KILL_GHOST: 10.0,
}


#: Minor, GPU instance, compute instance.
Numbers = tuple[int, int | None, int | None]

#: Seconds after which it is asked again whether a contested slot has come free.
CONTESTED_S = 2.0
#: Seconds after the grace of a stop at which sessions that nobody reads are cut, so that the engine's die event comes.
CUT_AFTER_S = 2.0
#: What the engine may take its time over: an image to unpack, a grace to wait for.
_LASTING = frozenset({OrderName.CREATE, OrderName.START, OrderName.STOP, OrderName.KILL, OrderName.REMOVE})


def permitted(c: Container, a: Allocation | None) -> bool:
    """Whether a grant and a CDI spec have to exist: exactly while HELD or BOUND; without a GPU, while it exists."""
    if c.engine_id is None:
        return False
    if c.wants_gpu:
        return a is not None and a.claim in {Claim.HELD, Claim.BOUND} and not a.lost
    return True


def due(c: Container, a: Allocation | None) -> OrderName | None:
    """The next order for a container that has none outstanding."""
    if c.phase is Phase.CREATING:
        return OrderName.LOOK if c.look else OrderName.CREATE
    if c.phase is Phase.STOPPING and c.ghost is None and not c.look and (a is None or a.claim is Claim.BOUND):
        # A disk that takes no permission, or gives none back, must not keep a container running.
        return OrderName.KILL if c.kill else OrderName.STOP
    wanted = permitted(c, a) and c.phase is not Phase.REMOVING
    stale = c.withdraw or (bool(c.blocks) and c.permission is Permission.UNSURE)
    if c.permission is not Permission.ABSENT and (stale or not permitted(c, a)):
        return OrderName.WITHDRAW
    if c.ghost is not None:
        return OrderName.KILL_GHOST
    if c.look or (a is not None and a.claim is Claim.RELEASING):
        return OrderName.LOOK
    if wanted and c.permission is not Permission.PRESENT:
        return OrderName.PERMIT
    match c.phase:
        case Phase.STARTING:
            return OrderName.START
        case Phase.REMOVING if not c.blocks:
            return OrderName.REMOVE if c.engine_id is not None else None
        case Phase.RUNNING if c.cgroup is None:
            return OrderName.LOOK
        case _:
            return OrderName.LOOK if c.blocks else None


def unreviewed(c: Container) -> bool:
    """Whether start-up waits for it: it is still to be looked at, or its permission or its ghost is being seen to.

    What the engine takes its time over is not waited for; what is being stopped gets its permission afterwards.
    """
    if c.frozen:
        return False
    return c.look if c.order is None else c.order.name not in _LASTING


def settle(tx: Tx, container: ContainerId) -> None:
    """Give the next order, if one is due and none is outstanding; end the operations whose goal is reached."""
    state = tx.state
    c = state.containers.get(container)
    if c is None:
        return
    a = state.allocation_of(container)
    if _gone(c, a):
        tx.put(state.containers, c.id, None)
        _end_operations(tx, c, a)
        return
    _end_operations(tx, c, a)
    if not state.settled:
        return  # reality, which is about to be heard of, has the first word; and it forgets what is outstanding
    if c.frozen or c.order is not None or (c.retry_at is not None and c.retry_at > tx.now):
        return
    name = due(c, a)
    if name in {OrderName.PERMIT, OrderName.START} and contested(state, c, a):
        if not c.blocks:
            tx.change(
                c, retry_at=tx.now + CONTESTED_S, why="its GPU is in use by a container that the ledger does not know"
            )
            return
        # Two may wait for each other's slots: the proof that it uses none but its own does not wait.
        name = OrderName.LOOK
    if name is not None:
        _give(tx, c, a, name)


def contested(state: State, c: Container, a: Allocation | None) -> bool:
    """Whether somebody else may still use slots that the ledger gives to this container.

    So it may be after an older state was restored; until the contrary is proved nothing starts on them.
    """
    for slot_id in a.slots if a is not None else ():
        slot = state.slots.get(slot_id)
        near = (slot, *state.excluded_by(slot)) if slot is not None else ()
        if any(other != c.id for s in near for other in state.containers.ids("blocks", s.id)):
            return True
    return False


def _gone(c: Container, a: Allocation | None) -> bool:
    """Its removal is proved, or it never came to be, and nothing of it is left on disk."""
    over = c.phase is Phase.REMOVING or (c.stray and not c.blocks)
    left = c.permission is not Permission.ABSENT or bool(c.blocks)
    return over and a is None and not left and (c.engine_id is None or (c.stray and c.phase is not Phase.REMOVING))


def _give(tx: Tx, c: Container, a: Allocation | None, name: OrderName) -> None:
    order = OrderId(tx.new_id())
    generation = c.generation
    if name is OrderName.PERMIT and not _same_generation(tx.state, c):
        generation = f"{tx.state.lineage}.{tx.state.counter}"
    timeout_s = TIMEOUT_S[name] + (c.grace_s if name is OrderName.STOP else 0.0)
    c = tx.change(
        c,
        order=Outstanding(id=order, name=name, deadline=tx.now + timeout_s),
        generation=generation,
        devices=_written(tx.state, c, a) if name is OrderName.PERMIT else c.devices,
        retry_at=None,
        look=c.look and name is not OrderName.LOOK,
        cut_at=tx.now + c.grace_s + CUT_AFTER_S if name is OrderName.STOP and c.cut_at is None else c.cut_at,
        permission=Permission.UNSURE if name in {OrderName.PERMIT, OrderName.WITHDRAW} else c.permission,
    )
    tx.emit(_order(c, a, name, timeout_s))


def _devices(state: State, a: Allocation | None) -> tuple[Numbers, ...]:
    found = [state.sight.devices.get(slot) for slot in (a.slots if a is not None else ())]
    return tuple([device for device in found if device is not None])


def _written(state: State, c: Container, a: Allocation | None) -> tuple[Numbers, ...]:
    """What its permission is written with, first; then what else a run that goes on began with."""
    now = _devices(state, a)
    runs = c.phase in {Phase.RUNNING, Phase.STOPPING}
    return (*now, *(old for old in c.devices if old not in now)) if runs else now


def moved(state: State, c: Container, a: Allocation) -> bool:
    """Whether other devices stand behind its slots now than when its permission was written; ids are reused."""
    written = c.permission is not Permission.ABSENT and a.claim in {Claim.HELD, Claim.BOUND}
    now = _devices(state, a)
    return written and len(now) == len(a.slots) and bool(c.devices) and now != c.devices[: len(now)]


def numbers(state: State) -> dict[SlotId, Numbers | None]:
    """What stands behind each slot that is there."""
    return {slot.id: state.sight.devices.get(slot.id) for slot in state.slots if not slot.lost}


def reached(state: State, c: Container, a: Allocation) -> tuple[SlotId, ...]:
    """Other slots that now bear a number which its permission was written with: by that it gets at them."""
    found = [
        slot
        for slot, now in numbers(state).items()
        if slot not in a.slots and any(_opens(written, now) for written in c.devices)
    ]
    return tuple(sorted(found))


def _opens(written: Numbers, now: Numbers | None) -> bool:
    """Whether device nodes that were given once open this slot: a slice comes with the node of its whole card."""
    return now is not None and (now == written or now == (written[0], None, None))


def _same_generation(state: State, c: Container) -> bool:
    """A write that was cut short is completed as it was; anything else gets a generation that never was."""
    return c.permission is Permission.UNSURE and c.generation.startswith(f"{state.lineage}.")


def _order(c: Container, a: Allocation | None, name: OrderName, timeout_s: float) -> do.AnyOrder:
    assert c.order is not None
    order, cid = c.order.id, c.id
    match name:
        case OrderName.CREATE:
            return do.CreateContainer(
                container=cid,
                order=order,
                timeout_s=timeout_s,
                key=c.key,
                name=c.engine_name,
                user=c.user,
                uid=c.uid,
                gid=c.gid,
                spec=c.spec,
                created_at=c.created_at,
            )
        case OrderName.WITHDRAW:
            return do.Withdraw(container=cid, order=order, timeout_s=timeout_s, key=c.key)
        case OrderName.LOOK:
            return do.LookAt(
                container=cid,
                order=order,
                timeout_s=timeout_s,
                engine=c.engine,
                engine_id=c.engine_id,
                name=c.engine_name,
                key=c.key,
                cgroup=c.cgroup,
                cgroup_parent=c.spec.cgroup_parent,
                slots=slots_to_prove(c, a),
            )
        case OrderName.KILL_GHOST:
            assert c.ghost is not None
            return do.KillGhost(container=cid, order=order, timeout_s=timeout_s, look=c.ghost)
        case OrderName.PERMIT:
            return do.Permit(
                container=cid,
                order=order,
                timeout_s=timeout_s,
                key=c.key,
                engine_id=_known(c),
                generation=c.generation,
                uid=c.uid,
                gid=c.gid,
                slots=a.slots if a is not None else (),
                mounts=c.spec.mounts,
            )
        case OrderName.START:
            return do.StartContainer(container=cid, order=order, timeout_s=timeout_s, engine_id=_known(c))
        case OrderName.STOP:
            return do.StopContainer(
                container=cid, order=order, timeout_s=timeout_s, engine_id=_known(c), grace_s=c.grace_s
            )
        case OrderName.KILL:
            return do.KillContainer(container=cid, order=order, timeout_s=timeout_s, engine_id=_known(c))
        case OrderName.REMOVE:
            return do.RemoveContainer(
                container=cid, order=order, timeout_s=timeout_s, engine=c.engine, engine_id=_known(c)
            )
        case _:
            assert_never(name)


def _known(c: Container) -> EngineId:
    assert c.engine_id is not None, "what the engine never made can neither be started nor stopped"
    return c.engine_id


def slots_to_prove(c: Container, a: Allocation | None) -> tuple[SlotId, ...]:
    """The slots that NVML has to show empty before anything is freed."""
    if a is not None and a.claim is Claim.RELEASING:
        return a.slots
    return c.blocks


def _end_operations(tx: Tx, c: Container, a: Allocation | None) -> None:
    for op in tx.state.operations.of("pending", c.id):
        outcome = _reached(tx, op, c, a)
        if outcome is not None:
            tx.finish(op, outcome)
            continue
        words = _overtaken(tx, op, c, a)
        if words is not None:
            tx.finish(op, "", Failure(kind=WrongPhase.kind, message=f"cannot {op.verb} {c.name}: {words}"))


def _reached(tx: Tx, op: Operation, c: Container, a: Allocation | None) -> str | None:
    """What came of an operation, once its goal is reached; None while it is not."""
    ready = not permitted(c, a) or c.permission is Permission.PRESENT
    there = tx.state.containers.get(c.id) is not None
    match op.verb:
        case Verb.CREATE if c.phase not in {Phase.CREATING, Phase.REMOVING} and ready and c.engine_id is not None:
            return "created"
        case Verb.START if c.phase is Phase.RUNNING and (a is not None or not c.wants_gpu):
            return "started"
        case Verb.STOP if c.phase is Phase.STOPPED and (a is None or a.claim is Claim.HELD):
            return "stopped"
        case Verb.STOP if c.phase is Phase.REMOVING:
            return "stopped"
        case Verb.RELEASE if there and a is None and c.phase is Phase.STOPPED and not c.engine_gone:
            return "released"
        case Verb.REMOVE if not there:
            return "removed"
        case Verb.RELEASE if not there:
            return "released"
        case _:
            return None


def _overtaken(tx: Tx, op: Operation, c: Container, a: Allocation | None) -> str | None:
    """Why an operation cannot come to its goal any more: something else was asked for, or happened. None: it can."""
    if tx.state.containers.get(c.id) is None:
        return "it was removed meanwhile"
    releasing = a is not None and a.claim is Claim.RELEASING
    match op.verb, c.phase:
        case Verb.CREATE | Verb.START, Phase.REMOVING:
            return "it is being removed"
        case Verb.START, Phase.STOPPING:
            return "it is being stopped"
        case Verb.START, Phase.STOPPED if not releasing:
            return c.why
        case ((Verb.STOP | Verb.RELEASE), (Phase.STARTING | Phase.RUNNING)):
            return "it was started again meanwhile"
        case Verb.RELEASE, Phase.STOPPED if not releasing and not c.engine_gone:
            return "it was started again meanwhile"
        case Verb.REMOVE, Phase.STARTING | Phase.RUNNING | Phase.STOPPED:
            return "it was started again meanwhile"
        case Verb.REMOVE, Phase.STOPPING if c.then is not Then.REMOVE:
            return "it was started again meanwhile"
        case _:
            return None


def pending(state: State, container: ContainerId, *verbs: Verb) -> tuple[Operation, ...]:
    """The unfinished operations of a container, of these verbs."""
    return tuple([o for o in state.operations.of("pending", container) if not verbs or o.verb in verbs])
