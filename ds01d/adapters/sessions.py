"""Shells that outlive the daemon: the client talks to the engine itself, we keep a duplicate of its connection.

A client that stops reading holds the engine's die event back for ever (moby #53614), and the GPU with it; a shutdown of
the duplicate cures that at once. So duplicate and client's pidfd are kept here and with systemd, from which the next
daemon gets them back. Who may open a shell in which container is decided elsewhere.
"""

import asyncio
import os
import secrets
import select
import socket
import stat
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from ds01d.adapters.docker import DockerEngine, EngineError, EngineRefused
from ds01d.adapters.docker_errors import is_paused, readable
from ds01d.adapters.docker_reading import Unreadable
from ds01d.adapters.procfs import Procfs
from ds01d.adapters.sessions_process import Execs, Inits
from ds01d.adapters.sessions_socket import attach
from ds01d.adapters.systemd import Inherited, Notifier
from ds01d.model.errors import EngineDown, EngineTrouble, NotFound, Paused, TooMany
from ds01d.model.ids import EngineId, Uid

PER_USER: Final = 20
#: Seconds in which a ticket has to be used.
TICKET_S: Final = 5.0
#: A sequence that nobody types: the usual one would end the session.
DETACH_KEYS: Final = "ctrl-_,ctrl-_,ctrl-_,ctrl-^"
#: Where systemd does not say how many descriptors it keeps: as many as the unit file asks for.
KEPT: Final = 512
_STORED: Final = "exec-"
_LIVES_IN: Final = "-in"
_FDS_EACH: Final = 2
_ASK_AGAIN_S: Final = (0.1, 1.0)


class Ticket(NamedTuple):
    """What a client shows to get its connection: once, as the same uid, within five seconds."""

    exec_id: str
    ticket: str


class ExecResult(NamedTuple):
    """Where an exec stands; a code of 126 or 127 says that its command could not be run."""

    container: EngineId
    running: bool
    exit_code: int | None


class _Session:
    """One exec whose connection we hold."""

    def __init__(
        self, exec_id: str, container: EngineId, uid: Uid, connection: socket.socket, *, lives_in: bool
    ) -> None:
        self.exec_id = exec_id
        #: Somebody lives in the container through it: when the last such one is left, the container may stop.
        self.lives_in = lives_in
        self.container = container
        self.uid = uid
        self.connection = connection
        self.client: int | None = None
        #: Somebody came for it.
        self.claimed = False
        self.ticket: str | None = None
        self.expiry: asyncio.TimerHandle | None = None
        #: Its stream ended before somebody came for it: what it said, and its exit code, are still to be fetched.
        self.ended_unclaimed = False

    @property
    def stored_as(self) -> str:
        """Its name in systemd's store; all that the next daemon needs to know stands in it."""
        return f"{_STORED}{self.exec_id}-{self.container}-{self.uid}{_LIVES_IN if self.lives_in else ''}"


class Sessions:
    """Every shell that is open through us. Use it in the event loop only; `close` leaves the shells alive."""

    def __init__(
        self,
        engine: DockerEngine,
        notifier: Notifier,
        procfs: Procfs,
        left: Callable[[EngineId], None] = lambda _: None,
        ended: Callable[[EngineId], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._execs = Execs(engine, procfs)
        #: `ended` is told when a container with shells has, whatever the engine says.
        self._inits = Inits(engine, procfs, ended)
        #: Told when the last session that somebody lived in a container through has ended.
        self._left = left
        self._notifier = notifier
        self._open: dict[str, _Session] = {}
        self._starting: Counter[Uid] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        # One set for all: a socket is watched for the hang-up alone, which asyncio's readers cannot do.
        self._epoll = select.epoll()
        self._watched: dict[int, _Session] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._woken)

    # --- a shell's life

    async def start(  # noqa: PLR0913 - what an exec is made of
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
        """Start a process in a running container; `user` is uid:gid in it, `size` rows and columns, `uid` who asks."""
        self._check_room(uid)
        self._starting[uid] += 1
        try:
            with _refusing("cannot open a shell"):
                exec_id = await self._engine.exec_create(
                    engine_id, argv, user=user, env=env, tty=tty, workdir=workdir, detach_keys=DETACH_KEYS
                )
                connection = await attach(self._engine.socket, exec_id, tty=tty, size=size)
        finally:
            self._starting[uid] -= 1
        session = _Session(exec_id, engine_id, uid, connection, lives_in=lives_in)
        self._adopt(session)
        session.ticket = secrets.token_urlsafe(24)
        session.expiry = asyncio.get_running_loop().call_later(TICKET_S, self._end_soon, session)
        try:
            self._notifier.store(session.stored_as, [connection.fileno()])
        except OSError as error:
            self._end_soon(session)
            raise TooMany("cannot keep another shell with systemd now", hint="try again in a moment") from error
        return Ticket(exec_id, session.ticket)

    async def claim(self, ticket: str, uid: Uid, client: int) -> tuple[str, int]:
        """Give an exec's id and connection for its ticket; the caller closes it, and its own pidfd `client`."""
        session = next((s for s in self._open.values() if s.ticket is not None and _same(s.ticket, ticket)), None)
        if session is None or session.uid != uid:
            raise NotFound("no such ticket", hint="a ticket is good once and for five seconds: ask for another")
        session.ticket = None
        if session.expiry is not None:
            session.expiry.cancel()
        handed: int | None = None
        try:
            session.client = os.dup(client)
            session.claimed = True
            handed = os.dup(session.connection.fileno())
            self._watch(session, session.client, select.EPOLLIN)
            self._notifier.store(session.stored_as, [session.client])
            # Handed out only when systemd has both: else a daemon that dies now leaves a shell that nobody can cut.
            await self._notifier.barrier()
        except (OSError, TimeoutError) as error:
            if handed is not None:
                os.close(handed)
            self._end_soon(session)
            raise TooMany("cannot keep another shell with systemd now", hint="try again in a moment") from error
        if session.ended_unclaimed:
            self._background(self._drop_if_over(session), session)
        return session.exec_id, handed

    def cut(self, engine_id: EngineId) -> int:
        """Shut down every connection into a container, and end what ran behind it; says how many there were."""
        inside = [session for session in self._open.values() if session.container == engine_id]
        for session in inside:
            _shut(session)
            self._end_soon(session)
        return len(inside)

    def count(self, uid: Uid) -> int:
        """How many shells a user has open or is opening."""
        return self._starting[uid] + sum(session.uid == uid for session in self._open.values())

    async def resize(self, exec_id: str, rows: int, cols: int) -> None:
        """Tell a shell's terminal its size."""
        with _refusing("cannot tell the shell its size"):
            await self._engine.exec_resize(exec_id, rows, cols)

    async def result(self, exec_id: str) -> ExecResult:
        """Whether an exec still runs, how it ended, and in which container it is; the engine forgets it with that."""
        with _refusing("cannot tell how the shell ended"):
            said = await self._execs.said(exec_id)
        return ExecResult(EngineId(said.container), said.running, None if said.running else said.exit_code)

    async def restore(self, stored: Iterable[Inherited]) -> int:
        """Take back what systemd kept for us, and say how many; what is over or was never claimed goes soon after."""
        kept: dict[str, list[int]] = {}
        for name, fd in stored:
            if name.startswith(_STORED):
                kept.setdefault(name, []).append(fd)
        for name, fds in kept.items():
            self._take_back(name, fds)
        return len(self._open)

    async def close(self) -> None:
        """Let go of everything here; the shells go on, and systemd keeps what the next daemon needs."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for session in tuple(self._open.values()):
            self._let_go(session)
        self._inits.close()

    # --- inside

    def _check_room(self, uid: Uid) -> None:
        if self.count(uid) >= PER_USER:
            hint = "container-exit or the end of its command closes one"
            raise TooMany(f"cannot open another shell: you have {PER_USER}, which is all one may have", hint=hint)
        room = KEPT if self._notifier.kept is None else self._notifier.kept
        taken = len(self._open) + self._starting.total()
        if self._notifier.listens and (taken + 1) * _FDS_EACH > room:
            hint = "an operator raises FileDescriptorStoreMax= of ds01d.service"
            raise TooMany(f"cannot open another shell: this server keeps at most {room // _FDS_EACH} alive", hint=hint)

    def _adopt(self, session: _Session) -> None:
        self._open[session.exec_id] = session
        # The engine's end of stream, told once: it closes its side and waits for the client to close the other.
        self._watch(session, session.connection.fileno(), select.EPOLLRDHUP | select.EPOLLET)
        self._background(self._inits.watch(session.container, lambda: self._lives(session.container)), session)

    def _lives(self, container: EngineId) -> bool:
        return any(session.container == container for session in self._open.values())

    def _watch(self, session: _Session, fd: int, events: int) -> None:
        self._watched[fd] = session
        self._epoll.register(fd, events)

    def _woken(self) -> None:
        for fd, _ in self._epoll.poll(0):
            session = self._watched.get(fd)
            if session is None:
                continue
            if fd == session.client:
                self._end_soon(session)
            elif not session.claimed:
                session.ended_unclaimed = True
            else:
                self._background(self._drop_if_over(session), session)

    def _end_soon(self, session: _Session) -> None:
        """Its client or its engine is gone, or nobody came for it: see to the rest, once."""
        if self._unwatch(session):
            self._background(self._end(session), session)

    def _unwatch(self, session: _Session) -> bool:
        if self._open.pop(session.exec_id, None) is None:
            return False
        for fd in (session.connection.fileno(), session.client):
            if fd is not None and self._watched.pop(fd, None) is not None:
                self._epoll.unregister(fd)
        if session.expiry is not None:
            session.expiry.cancel()
        return True

    def _background(self, work: Coroutine[None, None, None], session: _Session) -> None:
        task = asyncio.create_task(work, name=f"exec {session.exec_id[:12]}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _drop_if_over(self, session: _Session) -> None:
        """Let go of one whose process has ended; what the client has not read yet stays his to read."""
        # The engine may close the stream a moment before it has written down that the process ended.
        for wait_s in (0.0, *_ASK_AGAIN_S):
            await asyncio.sleep(wait_s)
            if await self._execs.over(session.exec_id):
                break
        else:
            return  # it closed its streams and runs on; its client's end is still watched
        if self._unwatch(session):
            self._notifier.forget(session.stored_as)
            self._let_go(session)
            self._tell_left(session)

    def _tell_left(self, session: _Session) -> None:
        others = (s for s in self._open.values() if s.lives_in and s.container == session.container)
        if session.lives_in and session.claimed and not any(others):
            self._left(session.container)

    async def _end(self, session: _Session) -> None:
        _shut(session)
        try:
            await self._execs.hang_up(session.exec_id, session.container)
        finally:
            # Kept by systemd until the process has ended: a daemon that dies before that has it all to do again.
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr] # this is a task
                self._notifier.forget(session.stored_as)
            self._let_go(session)
        self._tell_left(session)

    def _take_back(self, name: str, fds: list[int]) -> None:
        exec_id, _, rest = name.removeprefix(_STORED).partition("-")
        container, _, uid = rest.removesuffix(_LIVES_IN).partition("-")
        sockets = [fd for fd in fds if stat.S_ISSOCK(os.fstat(fd).st_mode)]
        clients = [fd for fd in fds if fd not in sockets]
        for fd in sockets[1:] + clients[1:]:
            os.close(fd)
        if not sockets or not uid.isdigit():
            for fd in sockets[:1] + clients[:1]:
                os.close(fd)
            self._notifier.forget(name)
            return
        connection = socket.socket(fileno=sockets[0])
        lives_in = name.endswith(_LIVES_IN)
        session = _Session(exec_id, EngineId(container), Uid(int(uid)), connection, lives_in=lives_in)
        self._adopt(session)
        if not clients:
            # Nobody claimed it before the last daemon ended.
            self._end_soon(session)
            return
        session.client = clients[0]
        session.claimed = True
        self._watch(session, clients[0], select.EPOLLIN)
        self._background(self._drop_if_over(session), session)

    def _let_go(self, session: _Session) -> None:
        self._open.pop(session.exec_id, None)
        if not self._lives(session.container):
            self._inits.forget(session.container)
        session.connection.close()
        if session.client is not None:
            os.close(session.client)
            session.client = None
        if session.expiry is not None:
            session.expiry.cancel()


def _shut(session: _Session) -> None:
    with suppress(OSError):  # it hung up by itself
        session.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Say the engine's trouble as the answer to a caller."""
    try:
        yield
    except EngineRefused as refused:
        if refused.absent:
            raise NotFound(f"{what}: {readable(refused.message)}", hint="container-list tells what runs") from refused
        if is_paused(refused.message):
            raise Paused(f"{what}: its container is paused") from refused
        raise EngineTrouble(f"{what}: {readable(refused.message)}") from refused
    except (EngineError, Unreadable) as error:
        hint = "try again; systemctl status docker tells an operator why"
        raise EngineDown(f"{what}: {error}", hint=hint) from error


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())
