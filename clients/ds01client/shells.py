"""`container-run` and `container-exec`: a shell or a command in a container, on this terminal or in these pipes."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ds01client.asking import complaint, result_of
from ds01client.containers import GOES_ON, NAME, change, name_one
from ds01client.descriptor import Refused, fetch
from ds01client.options import (
    DRY_RUN,
    EXITS_NOT_DONE,
    HELP,
    USER,
    Command,
    Declined,
    Given,
    Option,
    UsageError,
    help_text,
    parse,
)
from ds01client.stream import Garbled, Joint
from ds01client.terminal import Signalled, die_of, ending_signals, raw, size
from ds01client.wire import Answer, Unreachable, call, write

#: For failures of ours: the command's own exit code passes through as it is.
EXIT_OURS = 125
_EXIT_BROKEN_PIPE = 141
#: A shell outlives a daemon that restarts; its exit code is asked for this long, in seconds.
_RESULT_S = 30.0
#: Below the time after which waiting is remarked upon: nothing of ours may appear in somebody's editor. Seconds.
_QUIET_S = 4.0
_TRIES = 3
#: 128 and SIGHUP, SIGKILL, SIGTERM.
_ENDED_FROM_OUTSIDE = (129, 137, 143)

_TTY = Option("-t --tty", "", "give it a terminal, though this is none")
_NO_TTY = Option("-T --no-tty", "", "no terminal, though this is one")
_KEEP = Option("-k --keep", "", "the container goes on when you leave, though nothing runs in it")
_WORKDIR = Option("--workdir", "DIR", "where in the container it starts (/workspace)", param="workdir")

RUN = Command(
    "container-run",
    "start a container if it is not running, and open a shell in it",
    operands=(NAME,),
    options=(_KEEP, USER, DRY_RUN),
    json=False,
    text=(
        "Leave the shell with `exit` or ctrl-d. When the last one is left and nothing else runs in the container, it\n"
        "stops, and its GPU is held for a while."
    ),
    exits=f"exit codes: the shell's own, 125 where it cannot be told; without a shell\n  {EXITS_NOT_DONE}",
    examples=(
        ("container-run thesis", "a shell in it"),
        ("container-exec thesis -- nvidia-smi", "one command, no shell"),
        ("container-stop thesis", "stop it; its GPU is held for a while"),
    ),
)
EXEC = Command(
    "container-exec",
    "run a command in a running container",
    operands=(("NAME", "which container"),),
    rest="-- COMMAND…",
    options=(_TTY, _NO_TTY, _WORKDIR, USER),
    json=False,
    text=(
        "It reads what comes on standard input: inside a loop that reads a file, add </dev/null. It gets a terminal\n"
        "where input and output are one."
    ),
    exits="exit codes: the command's own; 125 for every failure that is not its own",
    examples=(
        ("container-exec thesis -- nvidia-smi", "what its GPU does"),
        ("container-exec thesis -- python train.py", "without it being stopped afterwards"),
        ("container-exec thesis -- sh -c 'ls | wc -l'", "pipes and the like need a shell of their own"),
        ("container-run thesis", "a shell in it"),
    ),
)
_COMMANDS = {c.name: c for c in (RUN, EXEC)}


class Lost(Exception):
    """How it ended cannot be told."""


def main(name: str, words: list[str]) -> int:
    """Run one of these commands."""
    command = _COMMANDS[name]
    given = parse(command, words)
    if given.has(HELP):
        write(1, help_text(command).encode())
        return 0
    try:
        with ending_signals():
            return _run(given) if name == RUN.name else _exec(given)
    except Signalled as e:
        return die_of(e.number)


def _run(given: Given) -> int:
    if given.has(DRY_RUN):
        name_one(RUN, given)
        return change(given, "container.start")
    if not (os.isatty(0) and os.isatty(1)):
        name = given.params.get("name", "NAME")
        raise UsageError("a shell needs a terminal", f"for a command: container-exec {name} -- COMMAND")
    name_one(RUN, given)
    wish = target(given)
    wish["lives_in"] = not given.has(_KEEP)
    started = begin(wish, None, tty=True)
    if _kind(started) == "wrong_phase":
        code = _start(given)
        if code:
            return code
        started = begin(wish, None, tty=True)
    code = through(wish, started, None, tty=True)
    if not given.has(_KEEP):
        _tell_left(given)
    return code


def _tell_left(given: Given) -> None:
    """What becomes of the container now; a daemon that is away does not hold anybody up."""
    try:
        answer = call("container.left", {k: v for k, v in given.params.items() if k in ("name", "user")})
    except Unreachable:
        return
    write(2, answer.body)


def _exec(given: Given) -> int:
    if "name" not in given.params:
        raise UsageError("which container, and what is to run? container-exec NAME -- COMMAND")
    if not given.rest:
        raise UsageError(
            f"what is to run? container-exec {given.params['name']} -- COMMAND; "
            f"for a shell: container-run {given.params['name']}"
        )
    if given.has(_TTY) and given.has(_NO_TTY):
        raise UsageError("--tty and --no-tty exclude each other")
    tty = given.has(_TTY) or (os.isatty(0) and os.isatty(1) and not given.has(_NO_TTY))
    wish = target(given)
    started = begin(wish, given.rest, tty=tty)
    return through(wish, started, given.rest, tty=tty)


def target(given: Given) -> dict[str, object]:
    """Which container, and where in it."""
    return {k: v for k, v in given.params.items() if k in ("name", "user", "workdir")}


def _start(given: Given) -> int:
    """Start the container; what the daemon says of it goes to stderr, since stdout will be the shell's."""
    wish = {k: v for k, v in given.params.items() if k in ("name", "user")}
    try:
        answer = call("container.start", {**wish, "request_id": os.urandom(8).hex()}, patience_s=3600, again=True)
    except Signalled:
        write(2, f"\n{GOES_ON.format(name=wish['name'])}\n".encode())
        raise
    if answer.message:
        write(2, f"{answer.message}\n".encode())
    # Of good news the first line: the next one says what to do now, and that is being done.
    write(2, answer.body if answer.exit_code else answer.body.partition(b"\n")[0] + b"\n")
    return answer.exit_code


def begin(wish: dict[str, object], argv: list[str] | None, *, tty: bool) -> Answer:
    """Ask for a shell, or for a command to be run."""
    params: dict[str, object] = {**wish, "tty": tty, "env": _environment()}
    if tty:
        params["rows"], params["cols"] = size()
    if argv is not None:
        params["argv"] = argv
    # A shell that nobody fetched ends by itself; a command may have begun, and is not begun twice.
    return call("exec.start", params, show="json", again=argv is None)


def through(wish: dict[str, object], started: Answer, argv: list[str] | None, *, tty: bool) -> int:
    """Fetch what was begun, join it with this terminal or these pipes until it ends; its exit code."""
    connection, exec_id = _fetch(wish, started, again=argv is None)
    try:
        with connection:
            _join(connection, exec_id, tty=tty)
        code = _exit_code(exec_id)
    except Lost as e:
        why = f"`container-why {wish['name']}` may say more"
        raise Declined(f"{e}\n{why}", EXIT_OURS) from None
    except Garbled as e:
        raise Declined(str(e), EXIT_OURS) from None
    except BrokenPipeError:
        return _EXIT_BROKEN_PIPE
    except OSError as e:
        raise Declined(f"cannot go on: {(e.strerror or str(e)).lower()}", EXIT_OURS) from None
    if tty and code in _ENDED_FROM_OUTSIDE:
        write(2, f"ended from outside; `container-why {wish['name']}` may say why\n".encode())
    return code


def _fetch(wish: dict[str, object], started: Answer, *, again: bool) -> tuple[socket.socket, str]:
    """The connection that was promised, and the exec's id; a shell can be asked for anew, a command cannot."""
    for left in reversed(range(_TRIES)):
        value = result_of(started)
        if started.exit_code or not isinstance(value, dict) or not {"ticket", "exec"} <= value.keys():
            raise Declined(complaint(started), started.exit_code or EXIT_OURS)
        try:
            return fetch(str(value["ticket"])), str(value["exec"])
        except Unreachable:
            # The daemon went away between its answer and this.
            if not again or not left:
                raise
            started = begin(wish, None, tty=True)
        except Refused as e:
            raise Declined(str(e), EXIT_OURS) from None
    raise AssertionError


def _join(connection: socket.socket, exec_id: str, *, tty: bool) -> None:
    with _resizing(exec_id) if tty else nullcontext(), raw(0) if tty and os.isatty(0) else nullcontext():
        Joint(connection, tty=tty).run()


@contextmanager
def _resizing(exec_id: str) -> Iterator[None]:
    """Tell the shell each new size of this terminal, from a thread: a daemon that restarts must not hold up typing."""
    changed = threading.Event()
    told = size()

    def tell() -> None:
        nonlocal told
        while changed.wait():
            changed.clear()
            if (now := size()) == told:
                continue
            try:
                call("exec.resize", {"exec": exec_id, "rows": now[0], "cols": now[1]}, show="json", patience_s=_QUIET_S)
                told = now
            except Unreachable:
                time.sleep(1)
                changed.set()

    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: changed.set())
    # A signal that the kernel gives to this thread does not wake the other out of its wait.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=tell, name="sizes", daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    changed.set()  # It may have changed since the shell was asked for.
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _exit_code(exec_id: str) -> int:
    """How it ended; a daemon that is away is waited for."""
    end, pause, told = time.monotonic() + _RESULT_S, 0.01, False
    trouble = "it has not ended, but its connection was cut"
    while time.monotonic() < end:
        try:
            answer = call("exec.result", {"exec": exec_id}, show="json", patience_s=_QUIET_S)
        except Unreachable:
            trouble = "ds01d does not answer, and only it can tell how this ended"
            if not told and os.isatty(2):
                told = True
                sys.stderr.write("waiting for ds01d to tell how it ended; Ctrl-C does not wait\n")
        else:
            value = result_of(answer)
            if answer.exit_code and _kind(answer) == "not_found":
                raise Lost("it ended with its container: how can no longer be told")
            if not answer.exit_code and isinstance(value, dict) and not value.get("running"):
                code = value.get("exit_code")
                if isinstance(code, int):
                    return code
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    raise Lost(f"cannot tell its exit code: {trouble}")


def _kind(answer: Answer) -> str:
    value = result_of(answer) if answer.exit_code else None
    error = value.get("error") if isinstance(value, dict) else None
    return str(error.get("kind", "")) if isinstance(error, dict) else ""


def _environment() -> dict[str, object]:
    """What programs need to know of this terminal; the daemon decides what goes along."""
    passed = {k: v for k, v in os.environ.items() if k in ("TERM", "COLORTERM", "LANG") or k.startswith("LC_")}
    return {k: v for k, v in passed.items() if v.isprintable()}
