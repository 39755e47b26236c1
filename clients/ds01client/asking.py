"""Questions to somebody at a terminal: which container, and whether he means it. Without a terminal there are none."""

import json
import posix
import sys

from ds01client.containers import form, shown
from ds01client.options import Command, Declined, Given, UsageError
from ds01client.wire import Answer, call, write

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


def choose_container(command: Command, given: Given) -> None:
    """Put a container's name into the request, chosen from a numbered list."""
    if not at_terminal():
        all_ = ", or --all" if any(o.name == "--all" for o in command.options) else ""
        raise UsageError(f"which container? {command.name} NAME{all_}; `container-list` lists yours")
    wish = {"user": given.params["user"]} if "user" in given.params else {}
    answer = call("container.list", wish, show="json", again=True)
    if answer.exit_code:
        raise Declined(complaint(answer), answer.exit_code)
    rows = _containers(answer)
    if not rows:
        raise Declined("there are no containers yet; make one with `container-create NAME IMAGE`", _EXIT_NOT_FOUND)
    several = len({row["user"] for row in rows}) > 1
    shown_as = [_line(row, several=several) for row in rows]
    row = rows[choose(shown_as, "which one?")]
    given.params["name"] = row["name"]
    if posix.getuid() == 0 or several:
        given.params.setdefault("user", row["user"])


def choose(lines: list[str], question: str) -> int:
    """One of several, by its number; the index in the list."""
    write(2, "".join([f"{n:3}  {line}\n" for n, line in enumerate(lines, 1)]).encode(errors="replace"))
    while True:
        said = ask(f"{question} [1-{len(lines)}, Enter for none] ")
        if not said:
            raise Declined("nothing chosen, nothing done", _EXIT_REFUSED)
        if said.isascii() and said.isdigit() and 1 <= int(said) <= len(lines):
            return int(said) - 1
        write(2, f"{said!r} is none of the numbers 1 to {len(lines)}\n".encode(errors="replace"))


def complaint(answer: Answer) -> str:
    """The words of an error that came as JSON, as they would have come as text."""
    value = result_of(answer)
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return answer.body.decode(errors="replace").strip()
    message, hint = str(error.get("message", "")), str(error.get("hint") or "")
    return f"{message}\n{hint}" if hint else message


def agreed(given: Given, method: str) -> int | None:
    """Show what would happen and ask whether it shall; None: yes, else the exit code to end with."""
    if not at_terminal():
        raise UsageError("there is no terminal to ask on: add --yes if you mean it, or --dry-run to see what it does")
    answer = call(method, {**given.params, "dry_run": True}, again=True)
    if answer.exit_code:
        if form(given) == "text":
            return shown(answer, given)
        return shown(call(method, {**given.params, "dry_run": True}, show="json", again=True), given)
    write(2, answer.body)
    if ask("go on? [y/N] ").lower() in ("y", "yes"):
        return None
    raise Declined("nothing done", _EXIT_REFUSED)


def _containers(answer: Answer) -> list[dict[str, str]]:
    value = result_of(answer)
    rows = value.get("containers") if isinstance(value, dict) else None
    return [r for r in rows if isinstance(r, dict) and "name" in r] if isinstance(rows, list) else []


def _line(row: dict[str, str], *, several: bool) -> str:
    owner = f"{row.get('user', ''):12} " if several else ""
    return f"{owner}{row['name']:24} {row.get('status', '')}"
