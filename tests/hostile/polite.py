"""Run as `python -m tests.hostile.polite FOLDER SECONDS`: does what people do, and has to be answered as people are.

A process of its own: what it waits is the daemon's time, not that of whoever storms. Prints what it waited, as JSON.
"""

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.api.caller import Client, connect
from tests.api.fakes import ALICE
from tests.hostile.door import REQUESTS, SHELLS

#: It shares two cores with all who storm; seconds.
IN_TIME_S: Final = 2.0
#: Root is somebody else, anybody else is alice: see the directory of the fakes.
ME: Final = ALICE if os.geteuid() == 0 else None


class Wrong(AssertionError):
    """It was not served as it should be."""


class Person:
    """One user at work."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Seconds of each call.
        self.waits: list[float] = []

    async def work(self, seconds: float) -> None:
        """Make, start, enter and remove containers."""
        client = await Client.at(str(self._folder / REQUESTS), ME)
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            n += 1
            name = f"polite-{n}"
            await self._right(client, "container.create", name=name, image="python:3.12", cpu_only=True)
            listed = await self._right(client, "container.list")
            if name not in {c["name"] for c in listed["containers"]}:
                raise Wrong(f"{name} was made and is not listed: {listed}")
            await self._right(client, "container.start", name=name)
            shell = await self._right(client, "exec.start", name=name)
            await self._fetch(shell["ticket"], shell["exec"])
            await self._right(client, "container.remove", name=name, force=True)
            await self._right(client, "system.status")
            await asyncio.sleep(0.02)
        await client.close()

    async def _right(self, client: Client, method: str, /, **params: object) -> Any:  # noqa: ANN401  # JSON
        began = time.monotonic()
        answer = await client.call(method, **params)
        self._took(began, method)
        if "result" not in answer:
            raise Wrong(f"{method} {params} was refused: {answer}")
        return answer["result"]

    def _took(self, began: float, what: str) -> None:
        self.waits.append(time.monotonic() - began)
        if self.waits[-1] > IN_TIME_S:
            raise Wrong(f"{what} took {self.waits[-1]:.1f} s")

    async def _fetch(self, ticket: str, exec_id: str) -> None:
        with connect(str(self._folder / SHELLS), ME) as sock:
            sock.settimeout(IN_TIME_S)
            began = time.monotonic()
            sock.sendall(f"{ticket}\n".encode())
            line, fds, _, _ = socket.recv_fds(sock, 300, 2)
            self._took(began, "a shell at the second door")
        for fd in fds:
            os.close(fd)
        if line != f"ok {exec_id}\n".encode() or len(fds) != 1:
            raise Wrong(f"a ticket gave {line!r} and {len(fds)} descriptors")


async def main(folder: Path, seconds: float) -> None:
    person, wrong = Person(folder), ""
    try:
        await person.work(seconds)
    except (Wrong, OSError, EOFError, TimeoutError) as e:
        wrong = repr(e)
    print(json.dumps({"waits": person.waits, "wrong": wrong}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
