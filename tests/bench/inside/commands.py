"""Commands as whole processes: the listing beside the engine's own."""

import grp
import os
import pwd
import signal
import time
from contextlib import suppress
from multiprocessing import Pipe

from tests.bench.measure import take_turns


class Starter:
    """A process that became a user, and starts programs as that user would: no fork of a large parent in the time."""

    def __init__(self, user: str, *groups: str) -> None:
        self._pipe, there = Pipe()
        account = pwd.getpwnam(user)
        self._pid = os.fork()
        if self._pid == 0:
            os.setgroups([grp.getgrnam(group).gr_gid for group in groups])
            os.setresgid(*[account.pw_gid] * 3)
            os.setresuid(*[account.pw_uid] * 3)
            with suppress(EOFError):
                while True:
                    there.send(_run(there.recv()))
            os._exit(0)

    def seconds(self, argv: list[str]) -> float:
        """From before its start to after its end."""
        self._pipe.send(argv)
        took: float = self._pipe.recv()
        return took

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _run(argv: list[str]) -> float:
    quiet = [(os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{argv} ended with {status}")
    return took


def commands(rounds: int) -> dict[str, list[float]]:
    """The listing of who has containers and of who has none, beside the engine's own commands; seconds."""
    alice, bob, docker = Starter("alice"), Starter("bob"), Starter("carol", "docker")
    found = take_turns(
        {
            "container-list, alice": lambda: alice.seconds(["/usr/bin/container-list"]),
            "container-list, bob": lambda: bob.seconds(["/usr/bin/container-list"]),
            "docker ps": lambda: docker.seconds(["/usr/bin/docker", "ps"]),
            "docker ps -a": lambda: docker.seconds(["/usr/bin/docker", "ps", "-a"]),
            "python3 -IS": lambda: alice.seconds(["/usr/bin/python3", "-IS", "-c", ""]),
        },
        rounds,
        warm=3,
    )
    for starter in (alice, bob, docker):
        starter.close()
    return found
