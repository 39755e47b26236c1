"""The outside of the doors, in memory: a directory of users, their folders, the engine's images, and shells."""

import asyncio
import os
from collections.abc import Callable, Mapping

import msgspec

from ds01d.api.ports import Kind
from ds01d.model.account import Account, Missing
from ds01d.model.actor import Owner
from ds01d.model.chronicle import EventLine
from ds01d.model.container import Mount
from ds01d.model.errors import NotFound, Paused
from ds01d.model.ids import EngineId, Uid
from ds01d.model.image import Image, owner_of
from ds01d.model.operation import Failure

ALICE, BOB, CAROL, NOBODY = Uid(2001), Uid(2002), Uid(2003), Uid(2999)
ADMINS = 2900


class Directory:
    """Alice and bob are users, carol is an operator by NSS, the one who runs the tests is root or a user."""

    def __init__(self) -> None:
        self.silent = False
        names = {ALICE: "alice", BOB: "bob", CAROL: "carol"}
        if os.geteuid():
            names = {Uid(os.geteuid()): "alice", BOB: "bob", CAROL: "carol"}
        self.accounts = {u: Account(uid=u, gid=u, name=n, home=f"/home/{n}") for u, n in names.items()}
        self.groups: dict[str, tuple[str, ...]] = {"carol": ("carol", "ds01-admin")}

    async def by_uid(self, uid: Uid) -> Account | Missing:
        return Missing.SILENT if self.silent else self.accounts.get(uid, Missing.NO_SUCH)

    async def by_name(self, name: str) -> Account | Missing:
        if self.silent:
            return Missing.SILENT
        return next((a for a in self.accounts.values() if a.name == name), Missing.NO_SUCH)

    async def group_id(self, name: str) -> int | Missing:
        return ADMINS if name == "ds01-admin" else Missing.NO_SUCH

    async def groups_of(self, account: Account) -> tuple[str, ...] | Missing:
        return Missing.SILENT if self.silent else self.groups.get(account.name, (account.name,))


class Workspaces:
    """Folders that exist for everybody, but for the word `missing`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, bool]] = []

    async def resolve(self, owner: Owner, path: str, kind: Kind, *, create: bool) -> Mount | Failure:
        self.asked.append((owner.name, path, kind, create))
        if "missing" in path:
            return Failure(kind="not_found", message=f"cannot open {path}: no such directory")
        return Mount(source=path.replace("~", owner.home), target=f"/{kind}", device=1, inode=7)


class Engine:
    """A few images."""

    def __init__(self) -> None:
        self.references = ["python:3.12", "pytorch/pytorch:2.5", "ds01-2001/vision-image:latest"]
        self.trouble: Failure | None = None
        self.asked: list[Uid] = []
        #: Answers no sooner than this is set; None: at once.
        self.hangs: asyncio.Event | None = None

    async def names(self, uid: Uid) -> tuple[Image, ...] | Failure:
        self.asked.append(uid)
        if self.hangs is not None:
            await self.hangs.wait()
        if self.trouble is not None:
            return self.trouble
        return tuple([Image(reference=r, owner=owner_of(r), size_bytes=10**9) for r in self.references])


class Memory:
    """What was written down, kept in a list."""

    def __init__(self) -> None:
        self.lines: list[EventLine] = []

    async def events(
        self, wanted: Callable[[EventLine], bool], *, since: float | None, until: float | None, limit: int
    ) -> tuple[EventLine, ...] | Failure:
        low, high = since or 0.0, until or float("inf")
        return tuple([line for line in self.lines if low <= line.at <= high and wanted(line)][-limit:])


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    exec_id: str
    ticket: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    container: EngineId
    running: bool
    exit_code: int | None = None


class Shells:
    """Remembers what it was asked for; every ticket gives one end of a pipe."""

    def __init__(self) -> None:
        self.started: list[dict[str, object]] = []
        self.sizes: dict[str, tuple[int, int] | None] = {}
        self.of: dict[str, EngineId] = {}
        self.tickets: dict[str, tuple[str, Uid]] = {}
        self.claimed: list[tuple[str, Uid]] = []
        self.lent: list[int] = []
        self.exit_code: int | None = None
        #: The engine holds every container still.
        self.paused = False

    async def start(  # noqa: PLR0913  # the shape of the port
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
        if self.paused:
            raise Paused("its container is paused")
        exec_id = f"{len(self.started):064x}"
        self.started.append(
            {"argv": argv, "user": user, "env": dict(env), "tty": tty, "workdir": workdir, "lives_in": lives_in}
        )
        self.sizes[exec_id] = size
        self.of[exec_id] = engine_id
        self.tickets[f"ticket-{exec_id}"] = (exec_id, uid)
        return Ticket(exec_id=exec_id, ticket=f"ticket-{exec_id}")

    async def claim(self, ticket: str, uid: Uid, client: int) -> tuple[str, int]:
        os.fstat(client)
        found = self.tickets.get(ticket)
        if found is None or found[1] != uid:
            raise NotFound("no such ticket", hint="ask for another")
        del self.tickets[ticket]
        self.claimed.append((ticket, uid))
        mine, yours = os.pipe()
        self.lent.append(mine)
        return found[0], yours

    async def resize(self, exec_id: str, rows: int, cols: int) -> None:
        self.sizes[exec_id] = (rows, cols)

    async def result(self, exec_id: str) -> Result:
        if exec_id not in self.of:
            raise NotFound("cannot find this shell")
        return Result(container=self.of[exec_id], running=self.exit_code is None, exit_code=self.exit_code)
