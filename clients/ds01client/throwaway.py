"""`ds01-run`: a container made, started and entered in one go, and removed or held when one leaves it."""

import os
import re

from ds01client.asking import at_terminal, choose_image
from ds01client.containers import IMAGE, WISHES, change, settle_wishes
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
from ds01client.shells import EXIT_OURS, begin, target, through
from ds01client.terminal import Signalled, die_of, ending_signals
from ds01client.wire import Answer, Unreachable, call, write

_RM = Option("--rm", "", "remove it when you leave; else it is stopped, and its GPU held for a while")
_NAME = Option("--name", "NAME", "how to call it; else a name is made up", param="name")
_PATIENCE_S = 3600.0
_NAME_MAX = 63

DS01_RUN = Command(
    "ds01-run",
    "make a container, start it and open a shell or run a command in it, in one go",
    operands=(("[IMAGE]", "what it is made from"),),
    rest="[-- COMMAND…]",
    options=(_RM, _NAME, IMAGE, *WISHES, USER, DRY_RUN),
    json=False,
    exits=(
        "exit codes: those of the shell or the command, 125 for what fails before it runs; without a container\n"
        f"  {EXITS_NOT_DONE}"
    ),
    examples=(
        ("ds01-run pytorch", "a shell in a new container with one GPU"),
        ("ds01-run --rm pytorch", "the same, and nothing is left of it afterwards"),
        ("ds01-run --rm pytorch -- nvidia-smi", "one command"),
        ("ds01-run --gpus 2 --name big pytorch", "two GPUs, and a name of your choice"),
    ),
)


def main(_name: str, words: list[str]) -> int:
    """Run it."""
    given = parse(DS01_RUN, words)
    if given.has(HELP):
        write(1, help_text(DS01_RUN).encode())
        return 0
    settle_wishes(given)
    if "image" not in given.params and at_terminal():
        choose_image(given, "none")
    if "image" not in given.params:
        raise UsageError("from which image? ds01-run IMAGE")
    given.params.setdefault("name", made_up(str(given.params["image"])))
    if given.has(DRY_RUN):
        return change(given, "container.create")
    tty = os.isatty(0) and os.isatty(1)
    if not given.rest and not tty:
        raise UsageError("a shell needs a terminal", f"name a command: ds01-run {given.params['image']} -- COMMAND")
    try:
        with ending_signals():
            return _run(given, tty=tty)
    except Signalled as e:
        return die_of(e.number)


def made_up(image: str) -> str:
    """A name that says what it is made from, and that nobody has yet."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", image.rpartition("/")[2].partition(":")[0]).strip("-_")
    return f"{stem[: _NAME_MAX - 5] or 'run'}-{os.urandom(2).hex()}"


def _run(given: Given, *, tty: bool) -> int:
    code = _step("container.create", {**given.params, "request_id": os.urandom(8).hex()}, given)
    if code:
        return code
    left_by: BaseException | None = None
    try:
        code = _step("container.start", {**_which(given), "request_id": os.urandom(8).hex()}, given)
        if code:
            code = EXIT_OURS
        else:
            wish = {**target(given), "lives_in": True}
            code = through(wish, begin(wish, given.rest or None, tty=tty), given.rest or None, tty=tty)
    except (Declined, Unreachable, Signalled) as e:
        left_by = e
    _leave(given)
    if isinstance(left_by, Declined):
        raise Declined(str(left_by), EXIT_OURS)
    if left_by is not None:
        raise left_by
    return code


def _which(given: Given) -> dict[str, object]:
    return {k: v for k, v in given.params.items() if k in ("name", "user")}


def _step(method: str, params: dict[str, object], given: Given) -> int:
    """One step; what the daemon says of it goes to stderr, since stdout will be the command's."""
    name = given.params["name"]
    try:
        answer = call(method, params, patience_s=_PATIENCE_S, again=True)
    except Signalled:
        _say(f"\nds01d goes on with it: `container-list` shows how it stands, `container-cleanup {name}` removes it")
        raise
    # Of good news the first line: the next one says what to do now, and that is being done.
    _show(answer, lines_max=None if answer.exit_code else 1)
    return answer.exit_code


def _leave(given: Given) -> None:
    """Remove it, or stop it and say how long it is held; a failure here says what is left to do by hand."""
    name = given.params["name"]
    try:
        if given.has(_RM):
            answer = call("container.remove", {**_which(given), "force": True}, patience_s=_PATIENCE_S, again=True)
        else:
            answer = call("container.stop", _which(given), patience_s=_PATIENCE_S, again=True)
    except Unreachable as e:
        _say(f"{e}\n{name} is still there: `container-cleanup {name}` removes it when ds01d is back")
        return
    except Signalled:
        _say(f"\nds01d goes on with it; {name} may still be there: see `container-list`")
        raise
    _show(answer)
    if answer.exit_code and given.has(_RM):
        _say(f"{name} is still there: `container-cleanup {name} --force` removes it")


def _show(answer: Answer, *, lines_max: int | None = None) -> None:
    if answer.message:
        _say(answer.message)
    for line in answer.body.decode(errors="replace").splitlines()[:lines_max]:
        _say(line)


def _say(text: str) -> None:
    """To stderr, as long as somebody listens: what is to be done is done all the same."""
    try:
        write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        return
