"""Asks the NVML child what the driver shows, and never waits longer for it than for a sign of life.

A driver call can hang for ever in uninterruptible sleep, so a silent child is killed without waiting, put aside and
replaced. A card on which it hung twice is left out for a while: one sick card must not blind us to the others.
Nothing is concluded here.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ds01d.adapters.nvml.wire import Poll, Reading, Seen, Unidentified, Unseen, unread
from ds01d.model.probe import Blind, GpuSeen, Picture

#: Initialising takes about 1.5 s a card without persistence mode, so the child gets more time for it, and to start.
INIT_DEADLINES: Final = 6
#: A line holds all cards; 64 processes on each of 16 cards make about 100 kB.
LINE_BYTES: Final = 4 * 2**20
#: A child that failed is replaced at once; one that failed again after 1, 2, 4 … seconds.
RESPAWN_MAX_S: Final = 30.0
#: A killed process is usually gone in a millisecond; one in uninterruptible sleep is left to init.
REAP_S: Final = 0.2
#: How long a card is left out after its second hang; doubles with each further one.
SICK_S: Final = 30.0
SICK_MAX_S: Final = 600.0

_line: msgspec.json.Decoder[Reading | Seen | Unseen] = msgspec.json.Decoder(Reading | Seen | Unseen)


class Silent(Exception):
    """The child gave no sign of life in time."""

    def __init__(self, gpu: int | None, waited_s: float) -> None:
        super().__init__()
        self.gpu = gpu
        self.waited_s = waited_s


class Ended(Exception):
    """The child hung up, or said something that is no line of ours."""


class Child:
    """One child process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], lines: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        self.process = process
        self._lines = lines
        self._to = to
        self._heard = False

    @classmethod
    async def spawn(cls, argv: Sequence[str], env: Mapping[str, str] | None) -> "Child":
        """Start one; it speaks over a socket pair in place of stdin and stdout."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - no more than a vfork; argv is ours
                    argv, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True, env=env
                )
            except OSError:
                ours.close()
                raise
        lines, to = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
        return cls(process, lines, to)

    async def ask(self, request: Poll, silence_s: float) -> Seen | Unseen:
        """Send one request and wait for the answer, as long as signs of life keep coming."""
        at: int | None = None
        patience_s = silence_s if self._heard else silence_s * INIT_DEADLINES  # it may still be importing
        try:
            self._to.write(msgspec.json.encode(request) + b"\n")
            while True:
                line = await asyncio.wait_for(self._lines.readline(), patience_s)
                if not line.endswith(b"\n"):
                    raise Ended
                self._heard = True
                match _line.decode(line):
                    case Reading(gpu=gpu):
                        at = gpu
                        patience_s = silence_s * INIT_DEADLINES if gpu is None else silence_s
                    case answer:
                        return answer
        except TimeoutError:
            raise Silent(at, patience_s) from None
        except (OSError, ValueError, msgspec.DecodeError):  # ValueError: a line beyond the limit
            raise Ended from None

    def abandon(self) -> None:
        """Kill it and let go; in uninterruptible sleep it dies when it can."""
        self.process.kill()
        self._to.close()


class Sick(msgspec.Struct, frozen=True, kw_only=True):
    """A card on which the child hung: how often in a row, and until when it is left out."""

    hangs: int
    until: float


class Probe:
    """The driver's state on request: `poll` never raises for the world's trouble and never blocks the loop."""

    def __init__(
        self,
        argv: Sequence[str] | None = None,
        *,
        deadline_s: float = 5.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._argv = tuple(argv or (sys.executable, "-m", "ds01d.adapters.nvml.child"))
        self._env = None if env is None else dict(os.environ) | dict(env)
        self._deadline_s = deadline_s
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[Picture | Blind]] = []
        self._wake = asyncio.Event()
        self._child: Child | None = None
        self._abandoned: list[subprocess.Popen[bytes]] = []
        self._spawned = 0
        self._failures = 0
        self._respawn_at = 0.0
        self._reason = "the NVML child has not been asked yet"
        self._sick: dict[int, Sick] = {}
        self._last: dict[int, GpuSeen] = {}
        self._map: object = None
        self._revision = 0

    @property
    def pid(self) -> int | None:
        """The child's pid, while there is one."""
        return self._child.process.pid if self._child is not None else None

    async def start(self) -> None:
        """Begin to serve `poll`; the first child is started here."""
        await self._spawn()
        self._task = asyncio.create_task(self._serve(), name="nvml-probe")

    async def poll(self) -> Picture | Blind:
        """Look now: the answer's look began after this call, and callers who wait together share one."""
        if self._task is None or self._task.cancelled():
            return Blind(reason="the NVML probe is not running")
        if self._task.done():
            self._task.result()  # a bug of ours: whoever asks next hears of it
        future: asyncio.Future[Picture | Blind] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Stop serving and kill the child; waits no longer than a moment for it to be gone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._abandon()
        self._answer(self._waiting, Blind(reason="the NVML probe is being closed"))
        gone_by = time.monotonic() + REAP_S
        while any(process.poll() is None for process in self._abandoned) and time.monotonic() < gone_by:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)  # lets the loop close the socket

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            try:
                answer = await self._look()
            except BaseException:
                self._answer(waiting, Blind(reason="the NVML probe is being closed"))
                raise
            self._answer(waiting, answer)

    @staticmethod
    def _answer(waiting: list[asyncio.Future[Picture | Blind]], answer: Picture | Blind) -> None:
        for future in waiting:
            if not future.done():  # a caller may have given up
                future.set_result(answer)

    async def _look(self) -> Picture | Blind:
        self._abandoned = [process for process in self._abandoned if process.poll() is None]
        at = time.monotonic()
        if self._child is None and at >= self._respawn_at:
            await self._spawn()
        if self._child is None:
            return Blind(reason=self._reason)
        skip = tuple(index for index, sick in self._sick.items() if at < sick.until)
        try:
            answer = await self._child.ask(Poll(skip=skip), self._deadline_s)
        except Silent as silent:
            where = (
                "while the driver was being initialised" if silent.gpu is None else f"while reading GPU {silent.gpu}"
            )
            self._failed(f"NVML did not answer for {silent.waited_s:g} s {where}; its process was replaced")
            if silent.gpu is not None:
                self._hung(silent.gpu)
            return Blind(reason=self._reason)
        except Ended:
            self._failed("the NVML process ended without an answer; see the daemon's log for what it said")
            return Blind(reason=self._reason)
        match answer:
            case Seen():
                self._failures = 0
                return self._picture(at, answer, skip)
            case Unseen(reason=reason, fresh=fresh):
                if fresh:
                    self._failed(reason)
                return Blind(reason=reason)

    # --- the child ---------------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        try:
            self._child = await Child.spawn(self._argv, self._env)
        except OSError as error:
            self._failed(f"cannot start the NVML process: {error.strerror or error}")
        else:
            self._spawned += 1

    def _abandon(self) -> None:
        if self._child is not None:
            self._child.abandon()
            self._abandoned.append(self._child.process)
            self._child = None

    def _failed(self, reason: str) -> None:
        self._abandon()
        self._failures += 1
        self._reason = reason
        pause_s = 0.0 if self._failures == 1 else min(2.0 ** (self._failures - 2), RESPAWN_MAX_S)
        self._respawn_at = time.monotonic() + pause_s

    def _hung(self, index: int) -> None:
        hangs = self._sick[index].hangs + 1 if index in self._sick else 1
        pause_s = 0.0 if hangs == 1 else min(SICK_S * 2.0 ** (hangs - 2), SICK_MAX_S)
        self._sick[index] = Sick(hangs=hangs, until=time.monotonic() + pause_s)

    # --- the picture -------------------------------------------------------------------------------------------------

    def _picture(self, at: float, seen: Seen, skip: Sequence[int]) -> Picture:
        gpus = {gpu.uuid: gpu for gpu in seen.gpus}
        self._sick = {index: sick for index, sick in self._sick.items() if index in skip}
        unidentified: list[str] = []
        left_out = [
            Unidentified(index=index, trouble="the driver hangs when it is asked about this GPU") for index in skip
        ]
        for card in (*seen.unidentified, *left_out):
            known = self._last.get(card.index)
            # Indices move up when a card disappears: what was last seen there may be seen elsewhere now.
            if known is None or known.uuid in gpus:
                unidentified.append(f"GPU {card.index}: {card.trouble}")
            else:
                gpus[known.uuid] = unread(known, card.trouble, lost=card.lost)
        cards = tuple(sorted(gpus.values(), key=lambda gpu: gpu.index))
        self._last = {gpu.index: gpu for gpu in cards}
        device_map = (self._spawned, seen.init, tuple(map(_identity, cards)))
        if device_map != self._map:
            self._map = device_map
            self._revision += 1
        return Picture(at=at, revision=self._revision, driver=seen.driver, gpus=cards, unidentified=tuple(unidentified))


def _identity(gpu: GpuSeen) -> tuple[object, ...]:
    """What the device map is made of."""
    slices = tuple((part.profile, part.start, part.gi, part.ci, part.uuid) for part in gpu.slices)
    return gpu.uuid, gpu.index, gpu.minor, gpu.mig, slices
