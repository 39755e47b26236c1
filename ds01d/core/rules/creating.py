"""A container comes to be: the promise of slots is saved before the engine hears of it."""

import re

from ds01d.core.admitting import admit, limits_of, may_act_for
from ds01d.core.events import CreateRequested, Done, Failed
from ds01d.core.moves import back_off, engine_failure, fail, hold, hold_until, promise, release
from ds01d.core.requests import open_operation, repeated
from ds01d.core.state import State
from ds01d.core.tx import Tx
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, Phase
from ds01d.model.errors import EngineDown, EngineTrouble, Invalid, NameTaken, QuotaExceeded
from ds01d.model.facts import EngineStatus, Look
from ds01d.model.ids import ContainerId, EngineId, EngineName, OperationId
from ds01d.model.operation import Verb

#: How often a create is asked for before it counts as failed.
TRIES_MAX = 5
#: What the engine says of a container that it has, by our label and key.
_THERE = frozenset({EngineStatus.CREATED, EngineStatus.STOPPED, EngineStatus.RUNNING})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def requested(tx: Tx, e: CreateRequested) -> OperationId:
    """Refuse, or promise the slots and ask the engine for the container."""
    state, owner = tx.state, e.owner
    earlier = repeated(tx, e.actor, e.request_id)
    if earlier is not None:
        return earlier
    may_act_for(e.actor, owner.uid, owner.name)
    if not NAME.fullmatch(e.name):
        raise Invalid(
            f"cannot use the name {e.name!r}: expected a letter or digit, then up to 62 letters, digits, '_' or '-'"
        )
    taken = state.containers.one("name", (owner.uid, e.name))
    if taken is not None:
        raise NameTaken(
            f"cannot create {e.name}: {owner.name} has a container of that name, {taken.phase}",
            hint=f"start it with `container-run {e.name}`, or remove it with `container-cleanup {e.name}`",
        )
    engine = _engine(state, e.name)
    limits = limits_of(state, owner.uid, owner.name)
    have = state.containers.count("uid", owner.uid)
    if limits.max_containers_per_user is not None and have >= limits.max_containers_per_user:
        raise QuotaExceeded(
            f"cannot create another container: {owner.name} has {have} of {limits.max_containers_per_user}",
            hint="remove one with `container-cleanup NAME`, see yours with `container-list`",
            note=f"({have}/{limits.max_containers_per_user})",
        )
    slots = admit(state, tx.now, owner.uid, owner.name, e.spec.gpus) if e.spec.gpus is not None else ()
    container = Container(
        id=ContainerId(tx.new_id()),
        uid=owner.uid,
        gid=owner.gid,
        user=owner.name,
        group=state.policy.group(owner.uid),
        name=e.name,
        key=e.key,
        spec=e.spec,
        phase=Phase.CREATING,
        created_at=tx.now,
        engine=engine,
        why="being created",
    )
    tx.put(state.containers, container.id, container)
    if slots:
        promise(tx, container, tuple(slot.id for slot in slots), Claim.RESERVED)
    return open_operation(tx, e.actor, Verb.CREATE, container, e.request_id, stage="creating")


def _engine(state: State, name: str) -> EngineName:
    """The engine that is to make it: only that one's answers will prove anything about it, and it must read CDI specs.

    Without CDI there is no permission that could be withdrawn, and so no proof that a slot is free.
    """
    engine = state.sight.engine
    if engine is None:
        raise EngineDown(
            f"cannot create {name}: the engine has not answered yet", hint="`systemctl status docker` tells more"
        )
    if not engine.cdi:
        raise EngineTrouble(
            f"cannot create {name}: the engine (Docker {engine.version}) reads no CDI specs",
            hint='an operator needs Docker 25 or newer, with {"features": {"cdi": true}} in /etc/docker/daemon.json',
        )
    return engine.name


def created(tx: Tx, c: Container, e: Done) -> None:
    """The engine has it; its owner may start it from the moment its permission is written."""
    assert e.engine_id is not None
    exists(tx, c, e.engine_id)


def exists(tx: Tx, c: Container, engine_id: EngineId) -> None:
    """It was found to exist."""
    a = tx.state.allocation_of(c.id)
    tx.change(
        c,
        phase=Phase.STOPPED,
        engine_id=engine_id,
        attempts=0,
        why="created, not started yet",
    )
    if a is not None:
        hold(tx, a, hold_until(tx.now, tx.state.policy.limits(c.uid).created_timeout))


def failed(tx: Tx, c: Container, e: Failed) -> None:
    """The engine said no, for certain."""
    if e.again and c.attempts < TRIES_MAX:
        tx.change(c, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts, least=0.25))
        return
    fail(tx, c, engine_failure(e.kind, e.message, e.hint))
    give_up(tx, c)


def looked(tx: Tx, c: Container, look: Look) -> None:
    """After a create whose outcome is not known: found, or asked for again, which the engine's own name makes one.

    One that has run already was made under a newer state than the one that was restored: it is no less its owner's.
    """
    if look.status in _THERE and look.engine_id is not None:
        exists(tx, c, look.engine_id)
        if look.status is EngineStatus.RUNNING:
            tx.change(tx.state.containers.rows[c.id], look=True)
    elif look.status is EngineStatus.SILENT:
        tx.change(c, look=True, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts))
    elif look.status is EngineStatus.ABSENT and c.engine_id is None and c.attempts < TRIES_MAX:
        tx.change(c, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts, least=0.25))
    else:
        strange = look.status is EngineStatus.STRANGE
        words = "another engine answers than the one that was asked" if strange else "the engine does not create it"
        fail(tx, c, engine_failure("engine", f"cannot create {c.name}: {words}"))
        give_up(tx, c)


def give_up(tx: Tx, c: Container) -> None:
    """It will not be: what was promised goes back as soon as it is proved that nothing was made."""
    a = tx.state.allocation_of(c.id)
    tx.change(c, phase=Phase.REMOVING, attempts=0, why="could not be created")
    if a is not None:
        release(tx, a, "could not be created")
