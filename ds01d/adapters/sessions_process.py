"""The processes behind shells: an exec's own, how it is and how it is ended, and the first one of their container.

Nothing of connections and clients is known here.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from typing import Final

import msgspec

from ds01d.adapters.docker import DockerEngine, EngineError, EngineRefused
from ds01d.adapters.docker_reading import Unreadable
from ds01d.adapters.procfs import Procfs
from ds01d.model.facts import EngineStatus
from ds01d.model.ids import EngineId

#: Seconds from SIGHUP to SIGKILL.
HANG_UP_S: Final = 5.0
#: Seconds from the end of a container's first process until it is told, which may cut its shells.
LAST_WORDS_S: Final = 2.0
#: Pauses while a process that has to end has not begun yet, or the engine does not say.
_NOT_YET_S: Final = (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)


class Said(msgspec.Struct):
    """What the engine says of an exec."""

    container: str = msgspec.field(name="ContainerID", default="")
    running: bool = msgspec.field(name="Running", default=False)
    exit_code: int | None = msgspec.field(name="ExitCode", default=None)
    pid: int = msgspec.field(name="Pid", default=0)


class Execs:
    """The execs of one engine."""

    def __init__(self, engine: DockerEngine, procfs: Procfs) -> None:
        self._engine = engine
        self._procfs = procfs

    async def hang_up(self, exec_id: str, container: EngineId) -> None:
        """End the exec's process as a closing terminal does; a client that goes leaves it running otherwise.

        Returns when it has ended. The engine hands a connection out before it has started the process, and may not
        answer just now: both are a reason to ask again.
        """
        for pause_s in chain(_NOT_YET_S, repeat(_NOT_YET_S[-1])):
            with suppress(EngineError, Unreadable):
                if await self._over_after_hanging_up(exec_id, container):
                    return
            await asyncio.sleep(pause_s)

    async def _over_after_hanging_up(self, exec_id: str, container: EngineId) -> bool:
        if await self.over(exec_id):
            return True
        pid = (await self.said(exec_id)).pid
        pidfd = self._procfs.pidfd(pid) if pid else None
        if pidfd is None:
            return False
        try:
            # The pid may be another's by now: it has to be the engine's word still, and in the container's cgroup.
            text = self._procfs.cgroup_text(pid) or ""
            if container not in text or not (await self.said(exec_id)).running:
                return False
            for number in (signal.SIGHUP, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                if await _ended(pidfd, HANG_UP_S):
                    return True
        except ProcessLookupError:
            return True
        finally:
            os.close(pidfd)
        return False

    async def said(self, exec_id: str) -> Said:
        """How an exec is; raises what the engine does."""
        try:
            return msgspec.convert(await self._engine.exec_inspect(exec_id), Said)
        except msgspec.ValidationError as error:
            raise Unreadable(f"cannot read what the engine says of an exec: {error}") from error

    async def over(self, exec_id: str) -> bool:
        """Whether the engine says so; one that says nothing ends no shell, nor does one that has not begun it yet."""
        try:
            said = await self.said(exec_id)
        except EngineRefused as refused:
            return refused.absent
        except (EngineError, Unreadable):
            return False
        return not said.running and said.exit_code is not None


class Inits:
    """The first process of each container that has shells.

    While a shell is not read the engine does not tell that its container has ended (moby #53614), and a listing comes
    every half minute only; a pidfd tells at once. Whoever reads is left the time to read what was said last.
    """

    def __init__(
        self,
        engine: DockerEngine,
        procfs: Procfs,
        ended: Callable[[EngineId], None],
        last_words_s: float = LAST_WORDS_S,
    ) -> None:
        self._engine = engine
        self._procfs = procfs
        self._ended = ended
        self._last_words_s = last_words_s
        self._held: dict[EngineId, int] = {}
        #: Whom the engine is being asked about: a restarted daemon takes hundreds of shells back at once.
        self._asking: set[EngineId] = set()
        self._telling: dict[EngineId, asyncio.TimerHandle] = {}

    async def watch(self, container: EngineId, wanted: Callable[[], bool]) -> None:
        """Have its end told, if it runs; where the engine does not say, the next listing has to do."""
        if container in self._held or container in self._asking:
            return
        self._asking.add(container)
        try:
            seen = await self._engine.inspect(container)
        except (EngineError, Unreadable):
            return
        finally:
            self._asking.discard(container)
        if seen.status is not EngineStatus.RUNNING or not seen.pid or not wanted():
            return
        pidfd = self._procfs.pidfd(seen.pid)
        if pidfd is None:
            return
        # The pid may be another's by now.
        if container not in (self._procfs.cgroup_text(seen.pid) or ""):
            os.close(pidfd)
            return
        self._held[container] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._over, container)

    def forget(self, container: EngineId) -> None:
        """Its end interests nobody any more."""
        pidfd = self._held.pop(container, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Let go of all."""
        for telling in self._telling.values():
            telling.cancel()
        for container in tuple(self._held):
            self.forget(container)

    def _over(self, container: EngineId) -> None:
        self.forget(container)
        self._telling[container] = asyncio.get_running_loop().call_later(self._last_words_s, self._tell, container)

    def _tell(self, container: EngineId) -> None:
        self._telling.pop(container, None)
        self._ended(container)


async def _ended(pidfd: int, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        async with asyncio.timeout(timeout_s):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True
