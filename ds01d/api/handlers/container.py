"""`container.*`: resolve the caller's words, ask the mind, and show what came of it."""

import msgspec

from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Params
from ds01d.core.views import containers
from ds01d.core.views.containers import ContainerView


class ListParams(Params):
    """Which containers to show."""

    all: bool = False


class ContainerList(msgspec.Struct, frozen=True, kw_only=True):
    """Containers, by user and age."""

    containers: tuple[ContainerView, ...]
    all: bool = False


async def list_(desk: Desk, caller: Caller, wish: ListParams) -> ContainerList:
    """List one's own containers in any state; everybody's for operators."""
    shown = containers.list_of(desk.mind.state, caller.actor, everybody=wish.all)
    return ContainerList(containers=shown, all=wish.all)
