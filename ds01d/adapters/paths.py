"""Users' directories, looked at with the users' own rights by a short-lived child. Allowed roots are the policy's.

The daemon itself never opens a path of a user's: it would do it with root's rights, and a dead file server would hang
it. The child resolves the path once; what is stored and mounted is what came of that, with device and inode, and the
guard compares both again at every start.
"""

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from ds01d.adapters.own_thread import begin
from ds01d.model.actor import Owner
from ds01d.model.container import Mount
from ds01d.model.ids import Uid
from ds01d.model.operation import Failure

Kind = Literal["workspace", "data", "models"]

_DEADLINE_S: Final = 5.0
#: Seconds by which the thread may be later than the child.
_MARGIN_S: Final = 1.0
#: Children that start at once, so that a whole class may create its containers in the same second.
_STARTING_MAX: Final = 8
#: A child needs 25 ms of the processor; one that is there after so many seconds waits for a file server.
_STARTING_S: Final = 0.5
#: Seconds after a question until the next child starts: not while the container is made and started that it was about.
_REST_S: Final = 0.5
#: Questions at once, those that hang in a dead file server among them: such a child may be one that cannot be killed.
_CHILDREN_MAX: Final = 128
_CHILDREN_MAX_PER_USER: Final = 4
#: The daemon's own questions, about what containers were made with.
_CHILDREN_MAX_OWN: Final = 32
_CHILD: Final = Path(__file__).with_name("paths_child.py")
_TARGETS: Final[dict[Kind, str]] = {"workspace": "/workspace", "data": "/data", "models": "/models"}
#: The machine's own: what lies there is no data, and a socket or a device in it may be worth more than the user is.
_SYSTEM: Final = ("/proc", "/sys", "/dev", "/run", "/etc", "/boot")
_PATH_BYTES_MAX: Final = 1024


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says: a refusal, or all the rest."""

    refused: str | None = None
    denied: bool = False
    #: The refusal is about now, not about the path.
    busy: bool = False
    path: str = ""
    device: int = 0
    inode: int = 0
    owner: int = -1
    at_home: bool = False


class Paths:
    """Looks at paths as their users."""

    def __init__(self, *, deadline_s: float = _DEADLINE_S, talk: Callable[[bytes, float], bytes] | None = None) -> None:
        self._deadline_s = deadline_s
        self._spare = _Spare()
        self._asked = asyncio.Event()
        #: One child's answer to a question, given in so many seconds; runs in a thread and may never return.
        self._talk = talk if talk is not None else self._spare.talk
        self._starting = asyncio.Semaphore(_STARTING_MAX)
        #: Questions of each user that have not come back: one that hangs in a dead file server stays here.
        self._asking: Counter[Uid] = Counter()

    async def run(self) -> None:
        """See to it that a child has started already when somebody asks, until cancelled."""
        try:
            while True:
                self._asked.clear()
                await asyncio.wait({begin(self._spare.start, "path-spare")})
                await self._asked.wait()
                await asyncio.sleep(_REST_S)
        finally:
            self._spare.end()

    async def resolve(self, owner: Owner, path: str, kind: Kind, *, create: bool) -> Mount | Failure:
        """The directory behind a path, opened as its user; `create` makes its last part where it is missing."""
        asked = _absolute(path, owner.home)
        if asked is None:
            return _no(kind, path, "write it from `/` or from `~/` on, in one line")
        answer = await self._ask(
            owner.uid,
            {
                "uid": owner.uid,
                "gid": owner.gid,
                "name": owner.name,
                "home": owner.home,
                "path": asked,
                "create": create,
            },
        )
        if answer is None:
            return Failure(
                kind="engine",
                message=f"cannot use {path} as {kind}: its file system does not answer",
                hint=f"see whether `ls {path}` answers, then try again",
            )
        if answer.refused is not None:
            refusal = "too_many" if answer.busy else "denied" if answer.denied else "invalid"
            return _no(kind, path, answer.refused, refusal)
        unfit = _unfit(answer, owner, kind)
        if unfit is not None:
            return _no(kind, path, unfit)
        return Mount(source=answer.path, target=_TARGETS[kind], device=answer.device, inode=answer.inode)

    async def device(self, mount: Mount) -> int | None:
        """The device number of the stored path now, no link followed; None: something else is there, or no answer.

        File systems without a block device (NFS, btrfs, overlay) get another number with every mount.
        """
        answer = await self._ask(Uid(0), {"compare": mount.source})
        if answer is None or answer.refused is not None or answer.inode != mount.inode:
            return None
        return answer.device

    async def _ask(self, uid: Uid, question: Mapping[str, object]) -> _Answer | None:
        """The child's answer; None: there was none in time."""
        most = _CHILDREN_MAX_PER_USER if uid else _CHILDREN_MAX_OWN
        if self._asking[uid] >= most or self._asking.total() >= _CHILDREN_MAX:
            return _Answer(refused="too many paths are being looked at, or hang; try again in a moment", busy=True)
        raw = "".join(f"{name}={word}\0" for name, word in question.items()).encode()
        self._asking[uid] += 1
        self._asked.set()
        child: asyncio.Future[bytes] | None = None
        try:
            async with self._starting:
                child = begin(lambda: self._talk(raw, self._deadline_s), f"path-{uid}")
                child.add_done_callback(lambda _: self._ended(uid))
                await asyncio.wait({child}, timeout=min(_STARTING_S, self._deadline_s))
            await asyncio.wait({child}, timeout=self._deadline_s + _MARGIN_S)
        finally:
            if child is None:
                self._ended(uid)
        try:
            return _read(child.result())
        except (asyncio.InvalidStateError, subprocess.TimeoutExpired):
            return None
        except (OSError, ValueError):
            return _Answer(refused="the daemon could not look at it; try again", busy=True)

    def _ended(self, uid: Uid) -> None:
        self._asking[uid] -= 1
        if not self._asking[uid]:
            del self._asking[uid]


class _Spare:
    """A child that has started and waits for its question: three quarters of its time is Python's start."""

    def __init__(self) -> None:
        self._waiting: subprocess.Popen[bytes] | None = None
        self._over = False
        #: Several threads ask at once.
        self._one = threading.Lock()

    def start(self) -> None:
        """Have one wait."""
        waiting = self._waiting
        if waiting is not None and waiting.poll() is None:
            return
        _let_go(self._take())
        try:
            child: subprocess.Popen[bytes] | None = _child()
        except OSError:  # without one each question has a child of its own
            return
        with self._one:
            if not self._over:
                self._waiting, child = child, None
        _let_go(child)

    def end(self) -> None:
        """Let it go unasked, and have no other."""
        with self._one:
            self._over = True
        _let_go(self._take())

    def talk(self, question: bytes, timeout_s: float) -> bytes:
        """One child's answer. Ends when it has: one that hangs keeps this thread, and counts as a child that long."""
        waiting = self._take()
        if waiting is not None and (answer := _told(waiting, question, timeout_s)):
            return answer
        # There was none, or it was killed meanwhile and says nothing.
        return _told(_child(), question, timeout_s)

    def _take(self) -> "subprocess.Popen[bytes] | None":
        with self._one:
            child, self._waiting = self._waiting, None
        return child


def _let_go(child: "subprocess.Popen[bytes] | None") -> None:
    if child is not None:
        child.kill()
        with child:  # waits for it, and closes its pipes
            pass


def _told(child: "subprocess.Popen[bytes]", question: bytes, timeout_s: float) -> bytes:
    with child:
        try:
            return child.communicate(question, timeout_s)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            raise


def _child() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own program, and what it is asked goes in as data
        [sys.executable, "-I", "-S", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
    )


def _read(answer: bytes) -> _Answer:
    """What the child wrote; raises `ValueError` where that is no answer."""
    words = dict(pair.split("=", 1) for pair in answer.decode().split("\0") if pair)
    if not words:
        raise ValueError("the child said nothing")
    return msgspec.convert(words, _Answer, strict=False)


def _absolute(path: str, home: str) -> str | None:
    """The path as the child is to open it; None: it cannot be meant."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    plain = path.startswith("/") and path.isprintable() and len(path.encode()) <= _PATH_BYTES_MAX
    return path if plain else None


def _unfit(answer: _Answer, owner: Owner, kind: Kind) -> str | None:
    """Why this directory is not mounted although its user may open it."""
    found = answer.path
    if not found.isprintable() or ":" in found or len(found.encode()) > _PATH_BYTES_MAX:
        return "a colon or an unprintable letter in its real name cannot be passed on to the engine"
    if found == "/" or any(found == place or found.startswith(f"{place}/") for place in _SYSTEM):
        return f"{found} is the machine's own"
    if kind == "workspace" and not answer.at_home and answer.owner != owner.uid:
        return f"{found} is neither in your home directory nor yours; as data (`-d`) it may do"
    return None


def _no(kind: Kind, path: str, why: str, refusal: str = "invalid") -> Failure:
    shown = path if path.isprintable() else ascii(path)
    hint = f"make it with `mkdir`, or name another one with `--{kind}`" if "no such directory" in why else ""
    return Failure(kind=refusal, message=f"cannot use {shown} as {kind}: {why}", hint=hint)
