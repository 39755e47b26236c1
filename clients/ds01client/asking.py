"""Questions to somebody at a terminal: which container, and whether he means it. Without a terminal there are none."""

import json
import posix
import sys

from ds01client.options import Command, Declined, Given, UsageError
from ds01client.wire import Answer, call, shown, write

_EXIT_REFUSED = 1
_EXIT_NOT_FOUND = 4


def at_terminal() -> bool:
    """Whether somebody is there to be asked: he reads stderr and types into stdin."""
    return posix.isatty(0) and posix.isatty(2)


def ask(question: str) -> str:
    """A line from the terminal; nothing at its end."""
    write(2, question.encode())
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        write(2, b"\n")
    return line.strip()


def result_of(answer: Answer) -> object:
    """The result as a value, where the answer was asked for as JSON."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def choose_container(command: Command, given: Given, *, everybody: bool = False) -> None:
    """Put a container's name into the request, chosen from a numbered list."""
    if not at_terminal():
        all_ = ", or --all" if any(o.name == "--all" for o in command.options) else ""
        raise UsageError(f"which container? {command.name} NAME{all_}; `container-list` lists yours")
    rows = containers_of(given, everybody=everybody)
    if not rows:
        raise Declined("there are no containers yet; make one with `container-create NAME IMAGE`", _EXIT_NOT_FOUND)
    several = len({row.get("user") for row in rows}) > 1
    chosen = choose([_line(row, several=several) for row in rows], "which one?", "none")
    if chosen is None:
        raise Declined("nothing chosen, nothing done", _EXIT_REFUSED)
    given.params["name"] = rows[chosen]["name"]
    if posix.getuid() == 0 or several or everybody:
        given.params.setdefault("user", rows[chosen].get("user"))


def choose(lines: list[str], question: str, otherwise: str) -> int | None:
    """One of several, by its number: the index in the list; None: nothing but Enter, which means `otherwise`."""
    write(2, "".join([f"{n:3}  {line}\n" for n, line in enumerate(lines, 1)]).encode(errors="replace"))
    first_to_last = "1" if len(lines) == 1 else f"1-{len(lines)}"
    while True:
        said = ask(f"{question} [{first_to_last}, Enter for {otherwise}] ")
        if not said:
            return None
        if said.isascii() and said.isdigit() and 1 <= int(said) <= len(lines):
            return int(said) - 1
        write(2, f"{said!r} is none of the numbers 1 to {len(lines)}\n".encode(errors="replace"))


def choose_image(given: Given, otherwise: str) -> None:
    """Ask for an image, unless one's own is called like the container."""
    answer = call("image.list", _of_user(given), show="json", again=True)
    images = _rows(answer, "images")
    name = given.params.get("name")
    own = {str(i["name"]) for i in images if i.get("own")}
    if not images or own & {name, f"{name}-image"}:
        return
    write(2, b"from which image?\n")
    names = [str(i["name"]) for i in images]
    if (chosen := choose(names, "image", otherwise)) is not None:
        given.params["image"] = names[chosen]


def complaint(answer: Answer) -> str:
    """The words of an error that came as JSON, as they would have come as text."""
    value = result_of(answer)
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return answer.body.decode(errors="replace").strip()
    message, hint = str(error.get("message", "")), str(error.get("hint") or "")
    return f"{message}\nhint: {hint}" if hint else message


def agreed(given: Given, method: str) -> int | None:
    """Show what would happen and ask whether it shall; None: yes, else the exit code to end with."""
    must_ask()
    answer = call(method, {**given.params, "dry_run": True}, show=given.form, again=True)
    if answer.exit_code:
        return shown(answer, given.form)
    write(2, answer.body)
    return confirmed()


def must_ask() -> None:
    """Nobody is asked where nobody sits."""
    if not at_terminal():
        raise UsageError("there is no terminal to ask on: add --yes if you mean it, or --dry-run to see what it does")


def confirmed() -> int | None:
    """None for a yes, else the exit code to end with."""
    if ask("go on? [y/N] ").lower() in ("y", "yes"):
        return None
    raise Declined("nothing done", _EXIT_REFUSED)


def containers_of(given: Given, *, everybody: bool = False) -> list[dict[str, object]]:
    """One's own containers, those of whom an operator names, or everybody's."""
    whose = _of_user(given) or ({"all": True} if everybody else {})
    answer = call("container.list", whose, show="json", again=True)
    if answer.exit_code:
        raise Declined(complaint(answer), answer.exit_code)
    return _rows(answer, "containers")


def _of_user(given: Given) -> dict[str, object]:
    return {"user": given.params["user"]} if "user" in given.params else {}


def _rows(answer: Answer, key: str) -> list[dict[str, object]]:
    value = None if answer.exit_code else result_of(answer)
    rows = value.get(key) if isinstance(value, dict) else None
    return [r for r in rows if isinstance(r, dict) and "name" in r] if isinstance(rows, list) else []


def _line(row: dict[str, object], *, several: bool) -> str:
    owner = f"{row.get('user', '')!s:12} " if several else ""
    return f"{owner}{row['name']!s:24} {row.get('status', '')!s}"
