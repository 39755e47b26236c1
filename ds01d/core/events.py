"""Everything that can happen to the daemon, as values: requests, answers to orders, and observations.

A request may be refused and then changed nothing. An answer settles the one order that is outstanding for its
container. An observation is a fact that nobody asked for.
"""

import msgspec

from ds01d.model.actor import Actor, Owner
from ds01d.model.container import ContainerSpec
from ds01d.model.facts import Engine, ForeignContainer, GpuProcess, Listed, Look
from ds01d.model.ids import ContainerId, EngineId, Key, OrderId
from ds01d.model.permission import PermissionSeen
from ds01d.model.policy import Policy
from ds01d.model.probe import Picture

# ---- requests


class CreateRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Make a container, and promise it the slots it asks for."""

    actor: Actor
    owner: Owner
    name: str
    spec: ContainerSpec
    #: Random; made by the door, so that the core stays a function of its arguments.
    key: Key
    request_id: str | None = None
    dry_run: bool = False


class StartRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Start a container, on its held slots or on new ones."""

    actor: Actor
    container: ContainerId
    request_id: str | None = None
    dry_run: bool = False


class StopRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a container; `release` gives its slots back at once instead of holding them."""

    actor: Actor
    container: ContainerId
    #: None: as the policy says.
    grace_s: float | None = None
    release: bool = False
    request_id: str | None = None
    dry_run: bool = False


class RemoveRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Remove a container; `force` stops a running one first."""

    actor: Actor
    container: ContainerId
    force: bool = False
    request_id: str | None = None
    dry_run: bool = False


class ReleaseRequested(msgspec.Struct, frozen=True, kw_only=True):
    """End the hold of a stopped container. `engine_gone` is an operator's word that its engine will not come back."""

    actor: Actor
    container: ContainerId
    engine_gone: bool = False
    request_id: str | None = None
    dry_run: bool = False


class ThawRequested(msgspec.Struct, frozen=True, kw_only=True):
    """Take a frozen record up again."""

    actor: Actor
    container: ContainerId


# ---- answers: exactly one for each order, and `Returned` when the call of an uncertain one comes back after all


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The order was carried out."""

    container: ContainerId
    order: OrderId
    #: Of a create: the engine's id.
    engine_id: EngineId | None = None


#: The kind of a start that the guard refused because of a directory of the user's.
DIRECTORY_MOVED = "directory_moved"
#: The kind of a start for which a directory of the user's is not there. Both messages begin with its path.
DIRECTORY_GONE = "directory_gone"


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The order was not carried out, for certain."""

    container: ContainerId
    order: OrderId
    #: An error kind (`engine`, `image_not_found`, `name_taken`, `disk` …) and the outside's words, made readable.
    kind: str
    message: str
    hint: str = ""
    #: A moment later it may go: the engine's view of a permission runs behind.
    again: bool = False


class Uncertain(msgspec.Struct, frozen=True, kw_only=True):
    """The order's time ran out, or its connection broke: it may have happened, or still happen."""

    container: ContainerId
    order: OrderId
    message: str = ""
    #: The call is over (a broken connection); false: it is still under way.
    returned: bool = False


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a look."""

    container: ContainerId
    order: OrderId
    look: Look


# ---- observations


class EngineHinted(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's event stream named a container: a reason to look, nothing more."""

    engine_id: EngineId
    #: start, die, destroy, oom …
    action: str
    #: The engine's time of it, epoch seconds.
    at: float


class ShellsLeft(msgspec.Struct, frozen=True, kw_only=True):
    """The last shell that `container-run` or `ds01-run` had opened is gone, and nothing but the init runs there."""

    engine_id: EngineId


class Relisted(msgspec.Struct, frozen=True, kw_only=True):
    """A listing came back. Records that changed since it was asked for are skipped."""

    #: The revision of the state when the listing was asked for.
    revision: int
    containers: tuple[Listed, ...]
    foreign: tuple[ForeignContainer, ...]
    #: Permissions on disk at that time; None: not looked at this time.
    permissions: tuple[PermissionSeen, ...] | None = None


class EngineSilent(msgspec.Struct, frozen=True, kw_only=True):
    """The engine does not answer; what we know of it is stale from here on."""

    reason: str


class EngineAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """The engine answers, for the first time or again."""

    engine: Engine
    #: It was not the same process all the time: what ran may have been stopped by that.
    restarted: bool


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of the GPUs, with every process on them attributed."""

    picture: Picture
    processes: tuple[GpuProcess, ...]
    #: For so long (seconds) slots are given by it: two polls.
    good_for_s: float = 10.0


class Blinded(msgspec.Struct, frozen=True, kw_only=True):
    """NVML does not answer: nothing can be seen, and nothing is concluded."""

    reason: str


class ConfigLoaded(msgspec.Struct, frozen=True, kw_only=True):
    """A checked policy is in force from now on."""

    policy: Policy


class RealityObserved(msgspec.Struct, frozen=True, kw_only=True):
    """At start-up, once: what there is, for the ledger to be held against (lifecycle.md §3)."""

    boot_id: str
    #: None: the engine does not answer yet.
    engine: Engine | None
    listed: tuple[Listed, ...]
    foreign: tuple[ForeignContainer, ...]
    permissions: tuple[PermissionSeen, ...]


class Woke(msgspec.Struct, frozen=True, kw_only=True):
    """The time of the next deadline has come."""


class Stumbled(msgspec.Struct, frozen=True, kw_only=True):
    """Handling an event about this container met a bug of ours; the record is to be looked at afresh."""

    container: ContainerId
    message: str
    #: The order whose answer was lost by that: it is over. None: another event met the bug.
    answered: OrderId | None = None


Request = CreateRequested | StartRequested | StopRequested | RemoveRequested | ReleaseRequested | ThawRequested
Answer = Done | Failed | Uncertain | Looked
Observation = (
    EngineHinted
    | ShellsLeft
    | Relisted
    | EngineSilent
    | EngineAnswered
    | Probed
    | Blinded
    | ConfigLoaded
    | RealityObserved
    | Woke
    | Stumbled
)
Event = Request | Answer | Observation
