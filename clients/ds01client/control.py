"""`ds01ctl`: what operators, and anybody who wants to know more, ask of the machine."""

import json
import math
import sys
import time
from collections.abc import Iterator

from ds01client.containers import change
from ds01client.options import (
    COUNT,
    DRY_RUN,
    EXITS,
    HELP,
    JSON,
    USER,
    Command,
    Declined,
    Given,
    Option,
    UsageError,
    help_text,
    parse,
)
from ds01client.telling import told
from ds01client.wire import (
    CODE_UNREACHABLE,
    EXIT_UNREACHABLE,
    STRANGE,
    VERSION,
    Broken,
    Reader,
    Unreachable,
    call,
    chunks,
    connect,
    error_json,
    head,
    shown,
    socket_path,
    write,
)

_ALL = Option("-a --all", "", "everybody's (operators)", param="all")
_OF_USER = Option("--user", "NAME", "this person's (operators)", param="user")
_FOLLOW = Option("-f --follow", "", "go on, with what happens from now on")
_LIMIT = Option("-n --limit", "N", "the last N at most", param="limit", kind=COUNT)
#: The daemon sends an empty line at least so often, with as much again for a slow machine. Seconds.
_SILENCE_S = 45.0
_COMEBACK_S = 30.0

STATUS = Command("ds01ctl status", "the machine: each GPU, free or whose and until when; what is amiss; what you have")
GPUS = Command("ds01ctl gpus", "every GPU and MIG slice, and who has it")
ALLOCATIONS = Command(
    "ds01ctl allocations", "which container holds which GPUs, and until when", options=(_ALL, _OF_USER)
)
STORY = Command(
    "ds01ctl story",
    "how a container or a GPU came to be as it is",
    operands=(("THING", "a container's name or id, or a GPU or MIG slice such as 0 or 0:1"),),
    options=(Option("--user", "NAME", "whose container, where two have the name", param="user"), _LIMIT),
    examples=(("ds01ctl story 0:1", "who had it, and why it changed hands"), ("ds01ctl story thesis", "a container's")),
)
EVENTS = Command(
    "ds01ctl events",
    "what happened; operators see everybody's, others their own",
    options=(
        Option("--user", "NAME", "what has to do with this person", param="user"),
        Option("--type", "PREFIX", "whose type begins like this, such as gpu or container.stop", param="type"),
        Option("--container", "NAME", "what has to do with this container", param="container"),
        Option("--since", "TIME", "such as 2h ago, 3d or 2026-11-20T14:20", param="since"),
        Option("--until", "TIME", "the same", param="until"),
        _LIMIT,
        _FOLLOW,
        Option("--summary", "", "only how many there were of each type", param="summary"),
    ),
    examples=(
        ("ds01ctl events --since '2h ago'", "lately"),
        ("ds01ctl events --type gpu --follow", "as GPUs change hands"),
        ("ds01ctl events --summary --since 7d", "a week in numbers"),
    ),
)
RELEASE = Command(
    "ds01ctl release",
    "end the hold of a stopped container: its GPU is free, its files stay",
    operands=(("NAME", "which container"),),
    options=(
        USER,
        Option("--engine-gone", "", "the Docker that made it was replaced and will not come back", param="engine_gone"),
        DRY_RUN,
    ),
    text="It is for operators. Your own you end with `container-stop NAME --release`.",
    examples=(("ds01ctl release thesis --user alice", "as an operator"),),
)
THAW = Command(
    "ds01ctl thaw",
    "take up a record again that was set aside after three faults (operators)",
    operands=(("NAME", "which container"),),
    options=(USER,),
    text="`ds01ctl story NAME` tells what happened before; read it first.",
)
VERSION_OF = Command("ds01ctl version", "which version answers, and which these commands are")
VERBS = {c.name.partition(" ")[2]: c for c in (STATUS, GPUS, ALLOCATIONS, STORY, EVENTS, RELEASE, THAW, VERSION_OF)}


def main(_name: str, words: list[str]) -> int:
    """Run the verb that comes first."""
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], HELP.flags[0]]
    verb = words[0] if words else "help"
    if verb in ("help", *HELP.flags):
        write(1, overview().encode())
        return 0
    command = VERBS.get(verb)
    if command is None:
        raise UsageError(_unknown(verb), "`ds01ctl help` says what each is for")
    given = parse(command, words[1:])
    if given.has(HELP):
        write(1, help_text(command).encode())
        return 0
    missing = [shown_as for shown_as, _ in command.operands if shown_as.lower() not in given.params]
    if missing:
        _choose(command, given, missing[0].lower())
    return _run(verb, given)


def _choose(command: Command, given: Given, param: str) -> None:
    """Ask somebody at a terminal which container; anybody else is told what is missing."""
    from ds01client.asking import at_terminal, choose_container  # noqa: PLC0415  # as below

    if not at_terminal():
        raise UsageError(f"{param.upper()} is missing: {command.name} {param.upper()}")
    choose_container(command, given, everybody=param == "name")
    given.params[param] = given.params.pop("name")


def _run(verb: str, given: Given) -> int:
    match verb:
        case "release":
            return change(given, "container.release")
        case "thaw":
            return change(given, "container.thaw")
        case "version":
            return _version(given)
        case "events" if given.has(_FOLLOW):
            return _follow(given)
        case _:
            method = {"gpus": "gpu.list", "allocations": "allocation.list"}.get(verb, f"system.{verb}")
            return shown(call(method, given.params, show=given.form, again=True), given.form)


def overview() -> str:
    """What `ds01ctl` alone shows."""
    rows = [f"  {verb:12} {command.summary}" for verb, command in VERBS.items()]
    return "\n".join(
        ["usage: ds01ctl COMMAND [arguments]", "", *rows, "", "`ds01ctl COMMAND --help` tells more.", "", EXITS, ""]
    )


def _unknown(verb: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # slow to import, and needed by mistakes only

    near = get_close_matches(verb, VERBS, 1, 0.7)
    return f"there is no {verb!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}")


def _version(given: Given) -> int:
    """Both versions; the commands know theirs without a daemon."""
    if not given.has(JSON):
        write(1, f"commands {VERSION}\n".encode())
        return shown(call("system.version", given.params, again=True), given.form)
    ours = f'{{"commands":"{VERSION}",'
    try:
        answer = call("system.version", given.params, show="json", again=True)
    except Unreachable as e:
        message, _, hint = str(e).partition("\n")
        error = error_json("unreachable", CODE_UNREACHABLE, message, hint, EXIT_UNREACHABLE)
        write(1, f"{ours}{error}}}\n".encode())
        return EXIT_UNREACHABLE
    if answer.body.startswith(b"{"):
        answer.body = ours.encode() + answer.body[1:]
    return shown(answer, given.form)


def _follow(given: Given) -> int:
    """Show events as they happen, until somebody has seen enough; a daemon that restarts is waited for."""
    beside = [
        o.name for o in EVENTS.options if o.name in ("--since", "--until", "--limit", "--summary") and given.has(o)
    ]
    if beside:
        raise UsageError(f"--follow shows what happens from now on, and {beside[0]} is about what was: leave one out")
    gone_since: float | None = None
    while True:
        try:
            for line in _lines():
                gone_since = None
                _show(line, given)
        except Unreachable:
            if gone_since is None or time.monotonic() > gone_since + _COMEBACK_S:
                raise
        except (Broken, ConnectionError) as e:
            if isinstance(e, BrokenPipeError):
                raise
        if gone_since is None:
            gone_since = time.monotonic()
            sys.stderr.write("ds01d broke off; waiting for it. `ds01ctl events --since 5m` tells what is missed here\n")
        time.sleep(1)


def _lines() -> Iterator[bytes]:
    """The daemon's lines, for as long as it sends any."""
    sock = connect(socket_path())
    try:
        sock.sendall(
            f"GET /events HTTP/1.1\r\nHost: ds01\r\nDs01-Show: text\r\nDs01-Client: {VERSION}\r\n\r\n".encode()
        )
        reader = Reader(sock, _SILENCE_S, remark=False)
        heads = head(reader)
        if b"ds01-exit" in heads:
            refusal = reader.exactly(int(heads.get(b"content-length", b"0"))).decode(errors="replace")
            raise Declined(refusal.strip(), int(heads[b"ds01-exit"]))
        if heads.get(b"transfer-encoding", b"").lower() != b"chunked":
            raise Declined(STRANGE, EXIT_UNREACHABLE)
        rest = b""
        for chunk in chunks(reader, math.inf):
            reader.wait_for(_SILENCE_S)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from [line for line in lines if line]
    finally:
        sock.close()


def _show(line: bytes, given: Given) -> None:
    """One event, if it is wanted: as it came, or in the form of `ds01ctl events`."""
    try:
        event = json.loads(line)
    except ValueError:
        return
    if not isinstance(event, dict) or not _wanted(event, given.params):
        return
    write(1, line + b"\n" if given.has(JSON) else f"{told(event)}\n".encode(errors="replace"))


def _wanted(event: dict[str, object], params: dict[str, object]) -> bool:
    details = event.get("details")
    container = details.get("container") if isinstance(details, dict) else None
    return (
        params.get("user") in (None, event.get("user"))
        and params.get("container") in (None, container)
        and str(event.get("event_type", "")).startswith(str(params.get("type", "")))
    )
