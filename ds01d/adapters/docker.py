"""The engine's calls, each with a deadline; it knows no rules and remembers nothing.

A refusal, no connection, a broken one and no answer are different errors, because only the first two say for certain
that nothing happened.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer

from ds01d.adapters.docker_document import create_document
from ds01d.adapters.docker_reading import InspectSeen, Unreadable, read_images, read_inspect, read_row
from ds01d.core.effects import CreateContainer
from ds01d.model.facts import Engine, EngineStatus, Listed
from ds01d.model.ids import EngineId, EngineName
from ds01d.model.image import Image

#: Seconds; an inspect that hangs behind an OCI hook answers nothing, a listing answers in milliseconds.
INSPECT_S: Final = 5.0
LISTING_S: Final = 20.0
#: Seconds after which even a call whose caller was answered long ago is given up.
CALL_MAX_S: Final = 900.0

_CONNECTION: Final = 900  # aiodocker's own number where there was no HTTP answer
_NOT_MODIFIED, _NOT_FOUND, _CONFLICT = 304, 404, 409
#: The keys of a listing's row that we read; aiodocker hands a row out key by key.
_ROW_KEYS: Final = ("Id", "Names", "Image", "State", "Created", "Labels")


class EngineError(Exception):
    """The engine did not do it, or did not say whether it did."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EngineRefused(EngineError):
    """The engine answered with an error: nothing was changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def absent(self) -> bool:
        """This engine has no such container, image or exec."""
        return self.status == _NOT_FOUND

    @property
    def conflict(self) -> bool:
        """Its present state does not allow it."""
        return self.status == _CONFLICT


class EngineUnreachable(EngineError):
    """No connection came about: the engine never heard of it."""


class EngineBroke(EngineError):
    """The connection broke after the request may have gone out: it may have happened."""


class EngineLate(EngineError):
    """No answer within the deadline: it may have happened, or still happen."""


class NameConflict(EngineError):
    """The name is taken on the engine by a container that is not the one we are making."""

    def __init__(self, holder: InspectSeen) -> None:
        super().__init__(f"the name is taken on the engine by container {holder.engine_id[:12]} ({holder.image})")
        self.holder = holder


class DockerEngine:
    """One engine behind a Unix socket. `init` is the host's path of the init that every container gets."""

    def __init__(self, socket: Path, *, init: Path = Path("/usr/lib/ds01/ds01-init")) -> None:
        self.socket = socket
        self._init = init
        self._docker = aiodocker.Docker(
            url="unix://localhost",  # the connector knows the socket
            # No limit on connections: a call that hangs behind a hook must not hold up the others.
            connector=aiohttp.UnixConnector(str(socket), limit=0),
            timeout=aiohttp.ClientTimeout(total=CALL_MAX_S),
        )

    async def close(self) -> None:
        """Hang up; what the engine was asked for goes on."""
        await self._docker.close()
        await self._docker.connector.close()

    # --- the engine itself

    def renegotiate(self) -> None:
        """Ask for the API's version again before the next call: an engine that came back may be another one."""
        self._docker.api_version = "auto"

    async def info(self, timeout_s: float = INSPECT_S) -> Engine:
        """Who the engine is and what it can do; costs it about 8 ms."""
        async with _asking(timeout_s):
            said = await self._docker.system.info()
        return Engine(
            name=EngineName(str(said["ID"])),
            version=str(said.get("ServerVersion", "")),
            # Docker 25 and later name the directories they read, and none while the feature is off.
            cdi=bool(said.get("CDISpecDirs")),
            cgroup_driver=str(said.get("CgroupDriver", "")),
        )

    # --- containers

    async def create(self, order: CreateContainer, timeout_s: float = CALL_MAX_S) -> EngineId:
        """Make the container; one of this name with our label and key that never ran is the one we are making."""
        document = create_document(order, self._init)
        try:
            async with _asking(timeout_s):
                made = await self._docker.containers.create(document, name=order.name)
        except EngineRefused as refused:
            if not refused.conflict:
                raise
        else:
            return EngineId(str(made.id))
        holder = await self.inspect(order.name)
        if holder.label_id == order.container and holder.label_key == order.key and not holder.started_at:
            return holder.engine_id
        raise NameConflict(holder)

    async def start(self, engine_id: EngineId, timeout_s: float = CALL_MAX_S) -> None:
        """Start it; one that runs already is a yes."""
        async with _asking(timeout_s):
            await self._container(engine_id).start()

    async def stop(self, engine_id: EngineId, grace_s: float, timeout_s: float = CALL_MAX_S) -> None:
        """SIGTERM, the grace in whole seconds, SIGKILL; one that runs no more is a yes."""
        async with _asking(timeout_s):
            await self._container(engine_id).stop(t=max(0, round(grace_s)), timeout=_no_limit())

    async def kill(self, engine_id: EngineId, timeout_s: float = CALL_MAX_S) -> None:
        """SIGKILL; one that runs no more is a yes."""
        try:
            async with _asking(timeout_s):
                await self._container(engine_id).kill(timeout=_no_limit())
        except EngineRefused as refused:
            # 409 says "is not running". A 404 stays an error: only a look tells which engine said it.
            if not refused.conflict:
                raise

    async def remove(self, engine_id: EngineId, timeout_s: float = CALL_MAX_S) -> bool:
        """Remove a stopped one with its anonymous volumes; says whether this engine had it."""
        try:
            async with _asking(timeout_s):
                await self._container(engine_id).delete(v=True, timeout=_no_limit())
        except EngineRefused as refused:
            if not refused.absent:
                raise
            return False
        return True

    async def inspect(self, name_or_id: str, timeout_s: float = INSPECT_S) -> InspectSeen:
        """One container by its full id or its exact name; the engine would take the beginning of an id, too."""
        async with _asking(timeout_s):
            answer = await self._docker.containers.container(quote(name_or_id, safe="")).show()
        seen = read_inspect(answer)
        if name_or_id not in (seen.engine_id, seen.name):
            raise EngineRefused(_NOT_FOUND, f"No such container: {name_or_id}")
        return seen

    async def listing(self, timeout_s: float = LISTING_S) -> tuple[tuple[Listed, Mapping[str, str]], ...]:
        """Every container, stopped ones too, with its labels, in one call. A listing proves nothing."""
        async with _asking(timeout_s):
            # aiodocker asks for parameters by keyword and writes True as the engine reads it.
            rows = await self._docker.containers.list(all=True)
        return tuple(read_row({key: row[key] for key in _ROW_KEYS if key in row}) for row in rows)

    # --- images

    async def images(self) -> tuple[Image, ...]:
        """Every name of every image, in alphabetical order."""
        async with _asking(LISTING_S):
            rows = await self._docker.images.list()
        return read_images(rows)

    # --- execs

    async def exec_create(
        self,
        engine_id: EngineId,
        argv: tuple[str, ...],
        *,
        user: str,
        env: Mapping[str, str],
        tty: bool,
        workdir: str | None,
        detach_keys: str,
    ) -> str:
        """Prepare a process in a running container, with all three streams; gives the exec's id."""
        async with _asking(LISTING_S):
            made = await self._container(engine_id).exec(
                list(argv),
                stdin=True,
                tty=tty,
                user=user,
                environment=dict(env),
                workdir=workdir,
                detach_keys=detach_keys,
            )
        return str(made.id)

    async def exec_resize(self, exec_id: str, rows: int, cols: int) -> None:
        """Tell a terminal its size."""
        async with _asking(INSPECT_S):
            await self._docker.containers.exec(quote(exec_id, safe="")).resize(h=rows, w=cols)

    async def exec_inspect(self, exec_id: str) -> Mapping[str, object]:
        """What the engine says of an exec: Running, ExitCode, Pid, ContainerID."""
        async with _asking(INSPECT_S):
            return await self._docker.containers.exec(quote(exec_id, safe="")).inspect()

    def _container(self, engine_id: EngineId) -> DockerContainer:
        return self._docker.containers.container(quote(engine_id, safe=""))


def status_when_absent(error: EngineError) -> EngineStatus:
    """What an inspect that failed says about its container: a 404 that it is absent, everything else nothing."""
    return EngineStatus.ABSENT if isinstance(error, EngineRefused) and error.absent else EngineStatus.SILENT


def _no_limit() -> aiohttp.ClientTimeout:
    # aiodocker would otherwise lift every limit of these calls; `_asking` keeps the time for all of them.
    return aiohttp.ClientTimeout(total=CALL_MAX_S)


@asynccontextmanager
async def _asking(timeout_s: float) -> AsyncIterator[None]:
    """Turn every way in which a call can fail into one of our three, and keep its time."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise EngineLate(f"the engine did not answer within {timeout_s:g} s") from error
    except aiodocker.DockerError as error:
        if error.status != _CONNECTION:
            raise EngineRefused(error.status, error.message) from error
        # aiodocker tells both by one number and keeps the connection's own error as the context.
        if isinstance(error.__context__, aiohttp.ClientConnectorError):
            raise EngineUnreachable(f"cannot reach the engine: {error.__context__.os_error.strerror}") from error
        raise EngineBroke("the connection to the engine broke") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineBroke(f"the connection to the engine broke: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"cannot read the engine's answer: {error!r}") from error
