"""May this user have these slots now? One check after the other (product.md §4), each with its own words."""

from ds01d.core.placing import Obstacle, choose, matches, obstacle, offered, spans
from ds01d.core.state import State
from ds01d.model.actor import Actor
from ds01d.model.errors import (
    AccountsSilent,
    CannotSee,
    Denied,
    FullGpuNotAllowed,
    Invalid,
    NoneFree,
    NoSuchSlots,
    QuotaExceeded,
    TooManyPerContainer,
)
from ds01d.model.gpu import PROFILE, GpuRequest, Kind, Slot
from ds01d.model.ids import Uid
from ds01d.model.policy import Limits

_FREE_HINT = "free one with `container-stop NAME --release`, see yours with `container-list`"
#: Different obstacles that are named in one refusal: what fits on a screen.
_SHOWN = 8


def may_act_for(actor: Actor, uid: Uid, user: str) -> None:
    """Everybody acts for himself; operators for anybody."""
    if actor.uid != uid and not actor.operator:
        raise Denied(f"cannot act for {user}: you are {actor.name}", hint="only operators may name another user")


def limits_of(state: State, uid: Uid, user: str) -> Limits:
    """The user's limits; a user whose group is not clear has none."""
    unclear = state.policy.ambiguous.get(uid)
    if unclear is not None:
        raise Denied(f"cannot tell the limits of {user}: {unclear}", hint="an operator has to settle the group")
    unknown = uid not in state.policy.group_of and uid not in state.policy.users
    if state.policy.unanswered and unknown:
        raise AccountsSilent(
            f"cannot tell the group of {user}: the directory of users did not answer for"
            f" {', '.join(state.policy.unanswered[:3])}",
            hint="try again in a minute",
        )
    return state.policy.limits(uid)


def admit(state: State, now: float, uid: Uid, user: str, request: GpuRequest) -> tuple[Slot, ...]:
    """The slots for a request, or the refusal that says what stands in the way and what to do next."""
    limits = limits_of(state, uid, user)
    _valid(request)
    _counts(state, uid, user, request, limits)
    there = [s for s in state.slots if offered(state, s) and matches(state, s, request)]
    _sight(state, now)
    if len(there) < request.count:
        raise NoSuchSlots(
            f"cannot give {_wish(request)}: this machine has {len(there)} such",
            hint="see what there is with `ds01ctl gpus`",
        )
    allowed = there if limits.allow_full_gpu else [s for s in there if s.profile is not None]
    if len(allowed) < request.count:
        raise FullGpuNotAllowed(
            f"cannot give a whole GPU to {user}: your group may hold MIG slices only", hint="ask for `--gpu-type mig`"
        )
    left = _gpueq_left(state, uid, user, request, limits, allowed)
    obstacles: list[Obstacle] = []
    free: list[Slot] = []
    for slot in allowed:
        found = obstacle(state, slot)
        if found is None:
            free.append(slot)
        else:
            obstacles.append(found)
    chosen = choose(state, free, request.count, priority=limits.priority, gpueq_left=left)
    if chosen is None:
        raise _none_free(request, free, obstacles, now)
    return chosen


def _valid(request: GpuRequest) -> None:
    if request.count < 1:
        raise Invalid(f"cannot give {request.count} GPUs: ask for 1 or more, or for a container with `--cpu-only`")
    if request.kind not in set(Kind) and not PROFILE.match(request.kind):
        raise Invalid(
            f"cannot understand the GPU type {request.kind!r}: expected any, full, mig or a profile such as 2g.20gb"
        )


def _counts(state: State, uid: Uid, user: str, request: GpuRequest, limits: Limits) -> None:
    n = request.count
    if limits.max_gpus_per_container is not None and n > limits.max_gpus_per_container:
        raise TooManyPerContainer(
            f"cannot give {n} GPUs to one container: {user} may have {limits.max_gpus_per_container} in one",
            hint=f"ask for `--gpus {limits.max_gpus_per_container}`" if limits.max_gpus_per_container else "",
            note=f"({n}/{limits.max_gpus_per_container})",
        )
    held = sum(len(a.slots) for a in state.allocations.of("uid", uid))
    if limits.max_mig_instances is not None and held + n > limits.max_mig_instances:
        raise QuotaExceeded(
            f"cannot give {n} more GPU{'s' if n > 1 else ''}: {user} holds {held} of {limits.max_mig_instances}",
            hint=_FREE_HINT,
            note=f"({held}/{limits.max_mig_instances})",
        )


def _sight(state: State, now: float) -> None:
    sight = state.sight
    if sight.blind is not None or sight.seen_at is None or now - sight.seen_at > sight.good_for_s:
        why = sight.blind or "the last look is too old"
        raise CannotSee(f"cannot see the GPUs: {why}", hint="try again in a moment; `ds01ctl status` says since when")


def _gpueq_left(
    state: State, uid: Uid, user: str, request: GpuRequest, limits: Limits, allowed: list[Slot]
) -> float | None:
    if limits.max_gpu_equivalents is None:
        return None
    held = sum(a.gpueq for a in state.allocations.of("uid", uid))
    left = limits.max_gpu_equivalents - held
    least = sum(sorted(s.gpueq for s in allowed)[: request.count])
    if least > left + 1e-9:
        raise QuotaExceeded(
            f"cannot give {_wish(request)}: that is {least:.2f} GPU-equivalents, and {user} holds"
            f" {held:.2f} of {limits.max_gpu_equivalents:g}",
            hint=_FREE_HINT,
            note=f"({held:.2f}/{limits.max_gpu_equivalents:g})",
        )
    return left


def _wish(request: GpuRequest) -> str:
    kind = {"any": "GPU", "full": "whole GPU", "mig": "MIG slice"}.get(request.kind, f"{request.kind} slice")
    memory = f" with {request.memory_mib / 1024:g} GiB" if request.memory_mib else ""
    return f"{request.count} {kind}{'s' if request.count > 1 else ''}{memory}"


def _none_free(request: GpuRequest, free: list[Slot], obstacles: list[Obstacle], now: float) -> NoneFree:
    alike: dict[str, list[str]] = {}
    for o in obstacles:
        alike.setdefault(f"{o.words}{_until(o, now)}", []).append(o.slot)
    shown = [f"GPU {spans(slots)} {words}" for words, slots in alike.items()][:_SHOWN]
    more = f", and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
    count = f"{len(free)} free, " if free else ""
    hint = "try again when one is free; a hold ends unless its container is started before, see `ds01ctl gpus`"
    if obstacles and all(o.outside for o in obstacles):
        hint = "tell an operator: what stands in the way is outside ds01d, and nobody knows when it ends"
    return NoneFree(f"cannot give {_wish(request)} now: {count}{'; '.join(shown)}{more}", hint=hint)


def _until(o: Obstacle, now: float) -> str:
    if o.until is None:
        return ""
    return f" for {max(1, round((o.until - now) / 60))} min more"
