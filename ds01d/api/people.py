"""Whom a request is for, and which container it means: names become records here, and nowhere else at the doors."""

import difflib

from ds01d.api.desk import Caller, Desk
from ds01d.core.state import State
from ds01d.model.account import Account, Missing
from ds01d.model.actor import Actor, Owner
from ds01d.model.container import Container
from ds01d.model.errors import BY_KIND, AccountsSilent, EngineTrouble, Invalid, NotFound, Refused
from ds01d.model.ids import ContainerId, Uid
from ds01d.model.operation import Failure


async def owner(desk: Desk, caller: Caller, user: str | None) -> Owner:
    """The one for whom something is made: the caller, or whom an operator names."""
    accounts, actor = desk.accounts, caller.actor
    found = await (accounts.by_uid(actor.uid) if user is None else accounts.by_name(user))
    who = user or actor.name
    match found:
        case Account():
            groups = await accounts.groups_of(found)
            if isinstance(groups, Missing):
                raise _silent(who)
            return Owner(uid=found.uid, gid=found.gid, name=found.name, home=found.home, groups=groups)
        case Missing.NO_SUCH:
            raise NotFound(f"cannot find a user called {who}", hint="`getent passwd` lists the accounts there are")
        case Missing.SILENT:
            raise _silent(who)


def container(state: State, actor: Actor, name: str, user: str | None) -> Container:
    """The container of this name; other people's are not to be found, but by operators who say whose."""
    if user is None or user == actor.name:
        found = state.containers.one("name", (actor.uid, name))
    else:
        found = next((c for c in state.containers if c.user == user and c.name == name and not c.stray), None)
    if found is None and actor.operator:
        # A container that nobody asked us for has no name of its own; its id says which one is meant.
        found = state.containers.get(ContainerId(name))
    if found is None:
        whose = "you have" if user is None or user == actor.name else f"{user} has"
        there = [c.name for c in state.containers if (c.uid == actor.uid if user is None else c.user == user)]
        words = f"cannot find a container called {name}: {whose} {_nearest(name, there)}"
        raise NotFound(words, hint=_list_hint(actor, user, there))
    return found


def anybodys(state: State, actor: Actor, name: str, user: str | None) -> Container:
    """The container of this name, whoever has it; where two have it, the operator has to say whose is meant."""
    if user is None:
        found = [c for c in state.containers if c.name == name and not c.stray]
        if len(found) == 1:
            return found[0]
        if found:
            owners = ", ".join(sorted(c.user for c in found))
            raise Invalid(f"cannot tell which {name} is meant: {owners} have one", hint="name the owner with `--user`")
    return container(state, actor, name, user)


def by_engine_id(state: State, actor: Actor, engine_id: str) -> Container:
    """The container in which a shell runs, if it is the caller's to know of."""
    found = state.containers.one("engine_id", engine_id)
    if found is None or (found.uid != actor.uid and not actor.operator):
        raise NotFound("cannot find this shell", hint="open a new one with `container-run NAME`")
    return found


def uid_named(state: State, actor: Actor, user: str | None) -> Uid:
    """The uid of whom a listing is about."""
    if user is None or user == actor.name:
        return actor.uid
    found = next((c.uid for c in state.containers if c.user == user), None)
    # A user without a container has nothing to list; no uid is -1.
    return found if found is not None else Uid(-1)


def refusal(failure: Failure) -> Refused:
    """The outside's no as the caller's refusal."""
    return BY_KIND.get(failure.kind, EngineTrouble)(failure.message, hint=failure.hint)


def _silent(who: str) -> AccountsSilent:
    return AccountsSilent(f"cannot look up {who}: the directory of users does not answer", hint="try again in a moment")


def _nearest(name: str, there: list[str]) -> str:
    if not there:
        return "none"
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.5) or sorted(there)[:5]
    return ", ".join(near) + (" …" if len(there) > len(near) else "")


def _list_hint(actor: Actor, user: str | None, there: list[str]) -> str:
    # An operator may mean somebody else's, and his list shows whose there are.
    if user is None and not there and not actor.operator:
        return "make one with `container-create NAME IMAGE`"
    return "see yours with `container-list`" if user is None else "see all with `container-list --all`"
