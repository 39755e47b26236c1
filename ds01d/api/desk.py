"""What a handler may reach, and who is standing in front of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ds01d.api.board import Board
from ds01d.api.ports import Accounts, Images, Past, Paths, Sessions
from ds01d.loop.port import Mind
from ds01d.model.actor import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts behind the door."""

    mind: Mind
    accounts: Accounts
    paths: Paths
    images: Images
    sessions: Sessions
    chronicle: Past
    board: Board = field(default_factory=Board)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One caller during one request."""

    actor: Actor
    #: Whether he hung up meanwhile.
    gone: Callable[[], bool]
