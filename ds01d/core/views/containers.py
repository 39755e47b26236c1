"""Containers as their owners and operators are shown them: lists, and the reasons behind one."""

from enum import StrEnum

import msgspec

from ds01d.core.state import State
from ds01d.core.views.slots import for_ever, names_of, until
from ds01d.model.actor import Actor
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, Phase
from ds01d.model.ids import Uid
from ds01d.model.image import shown


class ContainerStatus(StrEnum):
    """How a container is, in a word that people use."""

    CREATING = "creating"
    #: Made and never started.
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    #: Stopped, and holding no slots any more.
    PARKED = "parked"
    REMOVING = "removing"
    #: Set aside after three faults of ours.
    FROZEN = "frozen"


class ContainerView(msgspec.Struct, frozen=True, kw_only=True):
    """One container."""

    id: str
    name: str
    user: str
    uid: int
    status: ContainerStatus
    #: As people write them, `0:1`; empty: none now.
    slots: tuple[str, ...]
    wants_gpu: bool
    image: str
    created_at: float
    interface: str
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    #: When its hold ends and the slots go back, epoch seconds.
    until: float | None = None
    for_ever: bool = False
    #: Its slots are on their way back.
    releasing: bool = False
    #: The engine's id.
    engine_id: str | None = None
    #: What an operator or its owner should know: trouble, a violation, a lost GPU.
    notes: tuple[str, ...] = ()


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """Something that will happen by itself."""

    #: Epoch seconds; None: never.
    at: float | None
    what: str


class WhyView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a container is as it is, and what will happen to it."""

    container: ContainerView
    reasons: tuple[str, ...]
    deadlines: tuple[Deadline, ...]
    #: Commands that change it.
    next_steps: tuple[str, ...]


def list_of(state: State, uid: Uid, *, everybody: bool) -> tuple[ContainerView, ...]:
    """One user's containers, or everybody's with those that nobody asked us for."""
    chosen = state.containers if everybody else state.containers.of("uid", uid)
    views = [view(state, c) for c in chosen]
    return tuple(sorted(views, key=lambda v: (v.user, v.created_at, v.name)))


def view(state: State, c: Container) -> ContainerView:
    """One container."""
    a = state.allocation_of(c.id)
    return ContainerView(
        id=c.id,
        name=c.name,
        user=c.user,
        uid=c.uid,
        status=status(c, a),
        slots=names_of(state, a.slots) if a is not None else (),
        wants_gpu=c.wants_gpu,
        image=shown(c.spec.image),
        created_at=c.created_at,
        interface=c.spec.interface,
        started_at=c.started_at or None,
        finished_at=c.finished_at or None,
        exit_code=c.exit_code,
        until=until(a),
        for_ever=for_ever(a),
        releasing=a is not None and a.claim is Claim.RELEASING,
        engine_id=c.engine_id,
        notes=_notes(c, a),
    )


def status(c: Container, a: Allocation | None) -> ContainerStatus:
    """The word for how a container is."""
    if c.frozen:
        return ContainerStatus.FROZEN
    if c.phase is not Phase.STOPPED:
        return ContainerStatus(c.phase.value)
    if c.wants_gpu and (a is None or a.claim is Claim.RELEASING):
        return ContainerStatus.PARKED
    return ContainerStatus.STOPPED if c.started_at else ContainerStatus.CREATED


def why(state: State, c: Container, actor: Actor) -> WhyView:
    """Reasons, deadlines and ways on, in words."""
    a = state.allocation_of(c.id)
    shown_as = view(state, c)
    return WhyView(
        container=shown_as,
        reasons=_reasons(state, c, a),
        deadlines=_deadlines(c, a),
        next_steps=_next_steps(c, shown_as.status, a, actor),
    )


def _notes(c: Container, a: Allocation | None) -> tuple[str, ...]:
    notes = [c.trouble, c.violation]
    if a is not None and a.lost:
        notes.append("its GPU is gone: it is released when the container has ended")
    if a is not None and a.lingering is not None:
        notes.append(a.lingering)
    if c.stray:
        notes.append("not made through a request that is on record")
    return tuple(["; ".join(n.splitlines()) for n in notes if n])


def _reasons(state: State, c: Container, a: Allocation | None) -> tuple[str, ...]:
    word = status(c, a).value
    said = [c.why.removeprefix(f"{word}: ")] if c.why and c.why != word else []
    if c.frozen:
        said.append("its record was set aside after three faults of ours; an operator can take it up again")
    if a is not None:
        slots = ",".join(names_of(state, a.slots))
        said.append(_CLAIM_WORDS[a.claim].format(slots=slots))
        if a.claim is Claim.RELEASING and state.sight.blind is not None:
            said.append(f"that has to wait while the GPUs cannot be seen: {state.sight.blind}")
    elif c.wants_gpu:
        said.append("it holds no GPU; the next start asks for one anew")
    else:
        said.append("it was made without a GPU")
    if c.order is not None and c.order.uncertain:
        said.append(f"the engine has not answered the order to {c.order.name} yet; nothing else is sent before it does")
    elif c.retry_at is not None and c.attempts:
        said.append(f"{c.attempts} attempts failed; it is tried again")
    if c.interrupted:
        said.append("it ran when the engine or the machine went down, and is to run again")
    if state.sight.silent_since is not None:
        said.append("the engine does not answer: what is said here may be out of date")
    return (*said, *_notes(c, a))


_CLAIM_WORDS = {
    Claim.RESERVED: "GPU {slots} is reserved for it while it is being created",
    Claim.HELD: "it keeps GPU {slots} while it is stopped, so that a start finds the same",
    Claim.BOUND: "it has GPU {slots}",
    Claim.RELEASING: "GPU {slots} is being taken back: free as soon as it is proved that nobody can use it",
}


def _deadlines(c: Container, a: Allocation | None) -> tuple[Deadline, ...]:
    found = []
    if a is not None and a.claim is Claim.HELD:
        found.append(Deadline(at=until(a), what="its GPU goes back, unless it is started before"))
    if c.phase is Phase.STOPPING and c.cut_at is not None:
        found.append(Deadline(at=c.cut_at, what="its processes are killed and its shells are cut"))
    return tuple(found)


def _next_steps(c: Container, word: ContainerStatus, a: Allocation | None, actor: Actor) -> tuple[str, ...]:
    name = c.name if c.uid == actor.uid else f"{c.name} --user {c.user}"
    match word:
        case ContainerStatus.RUNNING:
            return (f"container-run {name}", f"container-stop {name}")
        case ContainerStatus.CREATED | ContainerStatus.STOPPED if a is not None:
            return (f"container-run {name}", f"container-stop {name} --release")
        case ContainerStatus.CREATED | ContainerStatus.STOPPED | ContainerStatus.PARKED:
            return (f"container-run {name}", f"container-cleanup {name}")
        case ContainerStatus.FROZEN:
            return (f"ds01ctl thaw {c.name} --user {c.user}",)
        case _:
            return ()
