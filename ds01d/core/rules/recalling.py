"""Start-up: the saved ledger meets the disk's second ledger, the permissions, before anything else is decided.

Whatever was outstanding died with the daemon, and what it knew of a withdrawal is not believed. Every record gets a
fresh look, whose answer is judged like any other (lifecycle.md §3). A permission that no record accounts for blocks its
slots until it is withdrawn and proved unused; a container that carries our label, our key, our permission and runs is
adopted.
"""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core.events import RealityObserved
from ds01d.core.moves import promise
from ds01d.core.state import State
from ds01d.core.tx import Tx
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, ContainerSpec, Permission, Phase, Then
from ds01d.model.facts import CgroupStatus, EngineStatus, Listed
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, EngineId, Key, SlotId, Uid
from ds01d.model.permission import PermissionSeen

#: A container of ours without a record that never ran is removed when it is older than this (seconds).
ORPHAN_MIN_S = 600.0
#: Nobody's group: whose group is not known must not come by somebody else's.
NO_GROUP = 65534


def recalled(tx: Tx, c: Container, e: RealityObserved) -> None:
    """One record: forget what was outstanding, believe of its permission only what is on disk, and look."""
    a = tx.state.allocation_of(c.id)
    seen = next((p for p in e.permissions if p.key == c.key), None)
    engine_id = _meant(tx.state, c, seen)
    listed = next((x for x in e.listed if x.engine_id == engine_id), None)
    rebooted = e.boot_id != tx.state.boot_id
    # An engine that is not there, or came up after this run began, may have taken it down behind our back.
    restarted = e.engine is None or (0 < c.started_at < e.engine.since)
    c = tx.change(
        c,
        engine_id=engine_id,
        order=None,
        retry_at=None,
        ghost=None,
        trouble=None,
        attempts=0,
        look=engine_id is not None,
        permission=_permission(tx.state, c, a, seen),
        blocks=_blocks(c, a, seen),
        interrupted=c.interrupted or ((rebooted or restarted) and c.phase is Phase.RUNNING),
        cgroup=None if rebooted or engine_id != c.engine_id else c.cgroup,
    )
    running = listed is not None and listed.status is EngineStatus.RUNNING
    known = a is None and not c.stray and c.wants_gpu and c.phase is Phase.STOPPED
    if known and seen is not None and running:
        _regain(tx, c, seen)


def _meant(state: State, c: Container, seen: PermissionSeen | None) -> EngineId | None:
    """The engine's container that a record is about: a permission of a newer history knows it better than a ledger."""
    if seen is None or seen.container_id is None or seen.generation == c.generation:
        return c.engine_id
    return c.engine_id if state.containers.count("engine_id", seen.container_id) else seen.container_id


def _permission(state: State, c: Container, a: Allocation | None, seen: PermissionSeen | None) -> Permission:
    if a is not None and a.claim is Claim.RELEASING:
        return Permission.UNSURE
    if seen is None:
        return Permission.ABSENT
    whole = (
        seen.has_grant
        and seen.has_spec
        and seen.trouble is None
        and seen.container_id == c.engine_id
        and seen.generation == c.generation
        and c.generation.startswith(f"{state.lineage}.")
        and set(seen.slots) == set(a.slots if a is not None else ())
    )
    return Permission.PRESENT if whole else Permission.UNSURE


def _blocks(c: Container, a: Allocation | None, seen: PermissionSeen | None) -> tuple[SlotId, ...]:
    """Slots that the permission on disk names and the ledger does not give."""
    if seen is None:
        return c.blocks
    own = set(a.slots) if a is not None else set()
    return tuple(sorted(set(c.blocks) | (set(seen.slots) - own)))


def _agrees(state: State, seen: PermissionSeen, engine_id: EngineId | None) -> bool:
    """Grant, spec and container id say the same, and the slots are nobody else's."""
    whole = seen.has_grant and seen.has_spec and seen.trouble is None and seen.container_id == engine_id
    return bool(
        whole and seen.slots and all(state.slots.get(s) and not state.allocations.count("slot", s) for s in seen.slots)
    )


def _regain(tx: Tx, c: Container, seen: PermissionSeen) -> None:
    """It runs by a permission that an older ledger does not remember: the promise is written down again."""
    if not _agrees(tx.state, seen, c.engine_id):
        return
    promise(tx, c, seen.slots, Claim.BOUND)
    tx.change(c, phase=Phase.RUNNING, blocks=(), why="taken up again after a roll-back of the state")
    tx.emit(do.Alert(container=c.id, text=f"{c.name} of {c.user} ran with slots that the ledger had forgotten: kept"))


def leftover(tx: Tx, seen: PermissionSeen, listed: tuple[Listed, ...]) -> ContainerId | None:
    """A permission under a key that no record has: adopt what runs by it, else block its slots until proved unused."""
    state = tx.state
    if state.containers.count("key", seen.key):
        return None
    carrier = next((x for x in listed if x.engine_id == seen.container_id or x.label_key == seen.key), None)
    engine_id = seen.container_id or (carrier.engine_id if carrier is not None else None)
    if engine_id is not None and state.containers.count("engine_id", engine_id):
        engine_id = None
    ours = carrier is not None and carrier.label_key == seen.key and _labelled(state, carrier)
    running = carrier is not None and carrier.status is EngineStatus.RUNNING
    if (
        ours
        and running
        and carrier is not None
        and _agrees(state, seen, carrier.engine_id)
        and _name_free(state, carrier)
    ):
        return _adopt(tx, seen, carrier)
    stray = _stray(tx, seen.key, engine_id, carrier)
    stray = tx.change(stray, permission=Permission.UNSURE, blocks=seen.slots, look=False)
    tx.emit(do.Alert(container=stray.id, text=f"a permission without a record ({seen.key}): its slots are blocked"))
    return stray.id


def _labelled(state: State, x: Listed) -> bool:
    """It carries an id of ours: this history's, or one before it."""
    lineage = (x.label_id or "").rpartition("-")[0]
    return bool(lineage) and (lineage == state.lineage or lineage in state.lineages)


def _name_free(state: State, x: Listed) -> bool:
    return bool(
        x.label_uid is not None and x.label_name and not state.containers.count("name", (x.label_uid, x.label_name))
    )


def _stray(tx: Tx, key: Key, engine_id: EngineId | None, x: Listed | None) -> Container:
    engine = tx.state.sight.engine
    made = Container(
        id=ContainerId(tx.new_id()),
        uid=x.label_uid if x is not None and x.label_uid is not None else Uid(0),
        gid=0,
        user=(x.label_user if x is not None else None) or "unknown",
        group="",
        name=(x.label_name if x is not None else None) or (x.name if x is not None else str(key)),
        key=key,
        spec=ContainerSpec(image=x.image if x is not None else "", gpus=GpuRequest()),
        phase=Phase.STOPPED,
        created_at=tx.now,
        engine=engine.name if engine is not None else None,
        engine_id=engine_id,
        stray=True,
        why="found without a record",
    )
    tx.put(tx.state.containers, made.id, made)
    return made


def _adopt(tx: Tx, seen: PermissionSeen, x: Listed) -> ContainerId:
    found = _stray(tx, seen.key, x.engine_id, x)
    assert x.label_uid is not None
    c = tx.change(
        found,
        stray=False,
        gid=x.label_gid if x.label_gid is not None else NO_GROUP,
        group=tx.state.policy.group(x.label_uid),
        spec=ContainerSpec(image=x.image, gpus=GpuRequest(count=len(seen.slots))),
        phase=Phase.RUNNING,
        permission=Permission.UNSURE,
        look=True,
        why="adopted: label, key, permission and slots agree",
    )
    promise(tx, c, seen.slots, Claim.BOUND)
    tx.emit(do.Alert(container=c.id, text=f"{c.name} of {c.user} runs without a record, and all else agrees: adopted"))
    return c.id


def orphan(tx: Tx, x: Listed) -> ContainerId | None:
    """A container with our label and no record: removed if it never ran, else only reported."""
    state = tx.state
    if state.containers.count("engine_id", x.engine_id) or not _labelled(state, x):
        return None
    if x.name != f"{x.label_name}._.{x.label_uid}":
        return None  # an image committed from a container of ours hands our labels on; the name it does not
    if x.label_key is None or state.containers.count("key", x.label_key):
        return None
    if x.status is not EngineStatus.CREATED or tx.now - x.created_at < ORPHAN_MIN_S:
        return None
    stray = _stray(tx, x.label_key, x.engine_id, x)
    tx.change(stray, phase=Phase.REMOVING, then=Then.REMOVE, why="never ran, and has no record")
    return stray.id


def unaccounted(tx: Tx, listed: tuple[Listed, ...], *, at_once: bool = False) -> None:
    """Note who carries our label and has no record, and tell the operators once of each.

    A listing may be older than the end of a record: only who stands in two of them counts, or in the one at start-up.
    """
    sight = tx.state.sight
    found = {x.engine_id: words for x in listed if (words := _unaccounted(tx.state, x)) is not None}
    sure = {i: words for i, words in found.items() if at_once or i in sight.suspected or i in sight.unaccounted}
    for engine_id, words in sure.items():
        if engine_id not in sight.unaccounted:
            tx.emit(do.Alert(text=words))
    if sure != sight.unaccounted or found.keys() != sight.suspected:
        tx.see(replace(sight, unaccounted=sure, suspected=frozenset(found)))


def _unaccounted(state: State, x: Listed) -> str | None:
    """What is odd about a container that carries a label of ours, in words; None: nothing."""
    if state.containers.count("engine_id", x.engine_id):
        return None
    which = f"{x.name} ({x.engine_id[:12]})"
    force = "-f " if x.status is EngineStatus.RUNNING else ""
    runs_on = x.status is not EngineStatus.RUNNING and x.cgroup is CgroupStatus.OCCUPIED
    stands = f"{x.status}, and processes of its run on" if runs_on else x.status
    cure = f"it is {stands}; `docker inspect {x.name}` tells more, root removes it with `docker rm {force}{x.name}`"
    mine = state.containers.one("key", x.label_key) if x.label_key is not None else None
    if mine is not None and mine.engine_id is not None:
        return f"{which} carries the labels of {mine.name} of {mine.user} and is another container: {cure}"
    mine = state.containers.get(x.label_id) if x.label_id is not None else None
    if mine is not None and mine.engine_id is not None:
        return f"{which} carries the id of {mine.name} of {mine.user} and is another container: {cure}"
    # What an engine that died in a start left running is "created" to its successor.
    ran = x.status in {EngineStatus.RUNNING, EngineStatus.STOPPED} or x.cgroup is CgroupStatus.OCCUPIED
    if _labelled(state, x) and ran:
        return f"{which} carries our label and has no record: {cure}"
    return None
