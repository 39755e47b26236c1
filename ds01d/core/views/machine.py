"""The machine as a whole: what is amiss, and how much of everything one user has."""

from enum import StrEnum

import msgspec

from ds01d.core.placing import called, spans
from ds01d.core.state import State
from ds01d.core.views.slots import in_order
from ds01d.model.actor import Actor


class Severity(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about the machine that its users should know."""

    severity: Severity
    text: str
    #: Since when, epoch seconds; None: not known.
    since: float | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one user has of what he may have; a limit of None is no limit."""

    user: str
    group: str
    slots: int
    slots_max: int | None
    gpueq: float
    gpueq_max: float | None
    containers: int
    containers_max: int | None


def notices(
    state: State, actor: Actor, *, unsaved_since: float | None, recovering: str | None = None
) -> tuple[Notice, ...]:
    """Everything that is amiss, the worst first."""
    sight, found = state.sight, []
    if not state.settled:
        found.append(_warning("starting: nothing is decided before the state was held against reality"))
    if recovering is not None:
        found.append(_warning(f"{recovering}: nothing is changed before an operator has restored a backup"))
    elif unsaved_since is not None:
        found.append(_warning("cannot save: changes are refused until the disk takes them", unsaved_since))
    if sight.silent_since is not None:
        words = f"the engine does not answer: {sight.silent_why}; what is shown of containers may be out of date"
        found.append(_warning(words, sight.silent_since))
    elif sight.engine is not None and not sight.engine.cdi:
        found.append(_warning("the engine reads no CDI specs: slots stay with a container until it is removed"))
    if sight.blind is not None:
        found.append(
            _warning(f"cannot see the GPUs: {sight.blind}; none is given or taken back meanwhile", sight.seen_at)
        )
    if actor.operator:
        if state.policy.complaint is not None:
            found.append(
                _warning(f"the policy on disk has a mistake, the one before it holds: {state.policy.complaint}")
            )
        if state.settings_complaint is not None:
            found.append(
                _warning(
                    "the daemon's settings on disk have a mistake, the last good ones hold:"
                    f" {state.settings_complaint}; mend it, then `systemctl restart ds01d`"
                )
            )
        found += [
            _warning(f"{c.name} of {c.user} is frozen: {c.why}; `ds01ctl thaw {c.name} --user {c.user}`")
            for c in state.containers
            if c.frozen
        ]
        found += [_warning(f"{c.name} of {c.user}: {c.violation}") for c in state.containers if c.violation]
        found += _foreign(state)
        found += [_warning(words) for words in sight.unaccounted.values()]
    return tuple(found)


def _foreign(state: State) -> list[Notice]:
    """Containers outside ds01d that run with GPUs: which, on what, and how that ends."""
    on = state.sight.foreign_on
    slots = in_order(state) if on else []
    seen = [
        (f, [slot.name for slot in slots if slot.id in on[f.engine_id]])
        for f in state.sight.foreign.values()
        if f.engine_id in on
    ]
    return [
        _warning(
            f"{called(f)}{f' of {f.user}' if f.user is not None else ''} runs outside ds01d with GPU {spans(names)}:"
            f" given to nobody new meanwhile; root ends it with `docker stop {f.name}`"
        )
        for f, names in seen
        if names
    ]


def share(state: State, actor: Actor) -> Share:
    """What the caller has, and may have."""
    limits = state.policy.limits(actor.uid)
    held = state.allocations.of("uid", actor.uid)
    return Share(
        user=actor.name,
        group=state.policy.group(actor.uid),
        slots=sum(len(a.slots) for a in held),
        slots_max=limits.max_mig_instances,
        gpueq=sum(a.gpueq for a in held),
        gpueq_max=limits.max_gpu_equivalents,
        containers=state.containers.count("uid", actor.uid),
        containers_max=limits.max_containers_per_user,
    )


def _warning(text: str, since: float | None = None) -> Notice:
    return Notice(severity=Severity.WARNING, text=text, since=since)
