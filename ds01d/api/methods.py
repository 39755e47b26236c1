"""The whole surface in one table: name, parameters, result, who may call, what it may refuse with, where it runs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ds01d.api.access import ANYONE, EVERYBODYS, Access
from ds01d.api.desk import Caller, Desk
from ds01d.api.handlers import container, system
from ds01d.api.params import Nothing, Params
from ds01d.model.errors import AccountsSilent, Bug, Denied, Refused, TooMany


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method. `run` takes exactly `params` and gives exactly `result`; the pair differs from row to row."""

    name: str
    params: type[Params]
    result: type[msgspec.Struct]
    access: Access
    errors: tuple[type[Refused], ...]
    run: Callable[[Desk, Caller, Any], Awaitable[msgspec.Struct]]
    doc: str


#: What any method may answer instead of doing its work.
ALWAYS: tuple[type[Refused], ...] = (Denied, TooMany, AccountsSilent, Bug)

METHODS: tuple[Method, ...] = (
    Method(
        name="container.list",
        params=container.ListParams,
        result=container.ContainerList,
        access=EVERYBODYS,
        errors=(),
        run=container.list_,
        doc="List one's own containers in any state; everybody's for operators.",
    ),
    Method(
        name="system.status",
        params=Nothing,
        result=system.Status,
        access=ANYONE,
        errors=(),
        run=system.status,
        doc="Show the machine: each slot, free or whose and until when; what is amiss; what the caller has.",
    ),
)
