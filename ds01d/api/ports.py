"""What the doors need of the outside, as shapes; adapters have these shapes without knowing of this file.

An answer that is a `Failure` is the outside's no, in words for the caller.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from ds01d.model.account import Account, Missing
from ds01d.model.actor import Owner
from ds01d.model.chronicle import EventLine
from ds01d.model.container import Mount
from ds01d.model.ids import EngineId, Uid
from ds01d.model.image import Image
from ds01d.model.operation import Failure

#: What a directory of the user's is for; decides where it lies in the container.
Kind = Literal["workspace", "data", "models"]


class Accounts(Protocol):
    """NSS, behind a thread, a cache and a deadline."""

    async def by_uid(self, uid: Uid) -> Account | Missing:
        """The account of a uid."""
        ...

    async def by_name(self, name: str) -> Account | Missing:
        """The account of a name."""
        ...

    async def group_id(self, name: str) -> int | Missing:
        """The gid of a group."""
        ...

    async def groups_of(self, account: Account) -> tuple[str, ...] | Missing:
        """Names of the groups an account is in now."""
        ...


#: Tells whether a process lives in a container's cgroup; None: not known. Must not block.
ContainerTest = Callable[[int], bool | None]


class Paths(Protocol):
    """A user's directories, resolved by a child that became the user."""

    async def resolve(self, owner: Owner, path: str, kind: Kind, *, create: bool) -> Mount | Failure:
        """The directory behind a path as the owner sees it; `create` makes it where it is missing."""
        ...


class Images(Protocol):
    """Images on the engine."""

    async def names(self, uid: Uid) -> tuple[Image, ...] | Failure:
        """Every named image that this user may use, or more."""
        ...


class Past(Protocol):
    """What was written down of what happened."""

    async def events(
        self, wanted: Callable[[EventLine], bool], *, since: float | None, until: float | None, limit: int
    ) -> tuple[EventLine, ...] | Failure:
        """The newest so many lines that are wanted, the oldest of them first. `wanted` may run in another thread."""
        ...


class Ticket(Protocol):
    """What a caller shows at the second socket to be given his shell."""

    @property
    def exec_id(self) -> str:
        """The engine's id of the exec."""
        ...

    @property
    def ticket(self) -> str:
        """Good once, for one uid, for a few seconds."""
        ...


class ExecResult(Protocol):
    """How an exec is, or how it ended."""

    @property
    def container(self) -> EngineId:
        """Where it runs."""
        ...

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        ...

    @property
    def exit_code(self) -> int | None:
        """Its exit code, once it has ended."""
        ...


class Sessions(Protocol):
    """Shells: made with the engine, kept with systemd, handed over once. These raise `Refused`."""

    async def start(  # noqa: PLR0913  # everything an exec is made from
        self,
        engine_id: EngineId,
        argv: tuple[str, ...],
        *,
        user: str,
        env: Mapping[str, str],
        tty: bool,
        workdir: str | None,
        size: tuple[int, int] | None,
        uid: Uid,
        lives_in: bool,
    ) -> Ticket:
        """Make an exec and connect to it; who comes with the ticket gets the connection. `size` is rows, columns."""
        ...

    async def claim(self, ticket: str, uid: Uid, client: int) -> tuple[str, int]:
        """The exec and a descriptor of its connection; the caller closes that, and his own pidfd `client`."""
        ...

    async def resize(self, exec_id: str, rows: int, cols: int) -> None:
        """Tell an exec the size of its terminal."""
        ...

    async def result(self, exec_id: str) -> ExecResult:
        """How an exec is, or how it ended."""
        ...
