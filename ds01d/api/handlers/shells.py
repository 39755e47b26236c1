"""`exec.*`: a shell or a command in one's own running container. The shell itself never passes through the daemon."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from ds01d.api import people, waiting
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Id, Own, Params, Rows, Word
from ds01d.api.ports import ExecResult
from ds01d.core.views import operations
from ds01d.model.container import Container, Phase
from ds01d.model.errors import Invalid, Paused, WrongPhase

#: What of the caller's environment goes along; everything else is dropped, as sshd does.
_PASSES = re.compile(r"TERM|LANG|COLORTERM|LC_[A-Z]+")
_VALUE_MAX = 256
#: Works in any image that has a shell: a login bash where there is one.
LOGIN_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -l; exec /bin/sh -l")

Argument = Annotated[str, Meta(max_length=131072, pattern=r"^[^\x00]*$")]


class ShellParams(Own, frozen=True, kw_only=True):
    """In which container, and what."""

    name: Word
    #: Left out: a login shell.
    argv: Annotated[tuple[Argument, ...], Meta(max_length=4096)] | None = None
    tty: bool = True
    rows: Rows = 24
    cols: Rows = 80
    #: Only TERM, LANG, COLORTERM and LC_* go along.
    env: Annotated[dict[str, str], Meta(max_length=256)] = msgspec.field(default_factory=dict)
    workdir: Annotated[str, Meta(max_length=4096, pattern=r"^/[^\x00]*$")] = "/workspace"
    #: Somebody lives in the container through it: when the last such shell is left and nothing else runs, it stops.
    lives_in: bool = False


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A shell that waits for its owner at the second socket."""

    exec: str
    #: Good once, for the caller's uid, for a few seconds.
    ticket: str
    container: str


class ExecParams(Params, frozen=True, kw_only=True):
    """Which shell."""

    exec: Id


class ResizeParams(ExecParams, frozen=True, kw_only=True):
    """Which shell, and how large its terminal is."""

    rows: Rows
    cols: Rows


class Resized(msgspec.Struct, frozen=True, kw_only=True):
    """It was told."""


class ExecState(msgspec.Struct, frozen=True, kw_only=True):
    """How a shell is, or how it ended."""

    running: bool
    exit_code: int | None = None


async def start(desk: Desk, caller: Caller, wish: ShellParams) -> Started:
    """Make a shell in a running container; fetch it at the second socket with the ticket."""
    c = people.container(desk.mind.state, caller.actor, wish.name, wish.user)
    _runs(desk, c, command=wish.argv is not None)
    assert c.engine_id is not None
    argv = wish.argv if wish.argv is not None else LOGIN_SHELL
    if not argv or not argv[0]:
        raise Invalid("cannot run nothing: name a command", hint="`container-exec NAME -- COMMAND`")
    try:
        ticket = await desk.sessions.start(
            c.engine_id,
            argv,
            user=f"{c.uid}:{c.gid}",
            env=passed(wish.env),
            tty=wish.tty,
            workdir=wish.workdir,
            size=(wish.rows, wish.cols) if wish.tty else None,
            uid=caller.actor.uid,
            lives_in=wish.lives_in,
        )
    except Paused:
        hint = f"`container-stop {c.name}` stops it; an operator resumes it with `docker unpause {c.engine_id[:12]}`"
        raise Paused(f"{_what(c, command=wish.argv is not None)}: it is paused", hint=hint) from None
    return Started(exec=ticket.exec_id, ticket=ticket.ticket, container=c.name)


async def resize(desk: Desk, caller: Caller, wish: ResizeParams) -> Resized:
    """Tell a shell the size of its terminal."""
    await _mine(desk, caller, wish.exec)
    await desk.sessions.resize(wish.exec, wish.rows, wish.cols)
    return Resized()


async def result(desk: Desk, caller: Caller, wish: ExecParams) -> ExecState:
    """Say whether a shell still runs, or with which code it ended."""
    found = await _mine(desk, caller, wish.exec)
    return ExecState(running=found.running, exit_code=found.exit_code)


def passed(env: dict[str, str]) -> dict[str, str]:
    """The part of an environment that goes along."""
    return {k: v for k, v in env.items() if _PASSES.fullmatch(k) and len(v) <= _VALUE_MAX and v.isprintable()}


async def _mine(desk: Desk, caller: Caller, exec_id: str) -> ExecResult:
    found = await desk.sessions.result(exec_id)
    people.by_engine_id(desk.mind.state, caller.actor, found.container)
    return found


def _runs(desk: Desk, c: Container, *, command: bool) -> None:
    what = _what(c, command=command)
    runs = c.phase is Phase.RUNNING and c.engine_id is not None
    # What is on its way waits for a silent engine from the first moment on, and a moment later is no better.
    grace_s = operations.RESTART_S if runs else 0.0
    if c.phase is not Phase.STOPPED and (down := waiting.silence(desk, what, grace_s=grace_s)) is not None:
        raise down
    if not runs:
        start = f"start it with `container-{'start' if command else 'run'} {c.name}`"
        way_on = start if c.phase is Phase.STOPPED else "try again in a moment"
        raise WrongPhase(f"{what}: it is {c.phase}", hint=way_on)


def _what(c: Container, *, command: bool) -> str:
    return f"cannot {'run a command' if command else 'open a shell'} in {c.name}"
