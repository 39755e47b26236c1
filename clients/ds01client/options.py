"""What a command takes: one table, from which its arguments are read and its help is written.

Not argparse: that takes twice as long to import as a whole command may take to run.
"""

import posix

#: What is given with an option.
FLAG = "flag"
TEXT = "text"
WHOLE = "whole number"
COUNT = "number of lines"
PATH = "path"
SECONDS = "duration"
SIZE = "size"

_COLUMN = 24
_DIGITS_MAX = 9
#: As many lines as the daemon gives at once.
_LINES_MAX = 10000


class UsageError(Exception):
    """The arguments cannot be meant: says which one and what was expected."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        #: What to do instead, where it is not to read the command's help.
        self.hint = hint


class Declined(Exception):
    """Nothing was done, and that is no fault: there was nothing to do it with, or somebody said no."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        #: What the command ends with.
        self.exit_code = exit_code


class Option:
    """One option: how it is written, what it becomes, what it means."""

    __slots__ = ("flags", "help", "kind", "param", "word")

    def __init__(self, flags: str, word: str, help_: str, *, param: str = "", kind: str = "") -> None:
        #: `-f --force`: the short form may be missing.
        self.flags = tuple(flags.split())
        #: What stands for its value in the help; empty: it takes none.
        self.word = word
        self.help = help_
        #: The parameter of the request that it becomes; empty: it is for the client alone.
        self.param = param
        self.kind = kind or (TEXT if word else FLAG)

    @property
    def name(self) -> str:
        """Its long form, by which a command asks for it."""
        return self.flags[-1]


#: What a command ends with when it could not do as asked.
EXITS_NOT_DONE = "1 refused, 2 usage, 3 denied, 4 not found, 69 ds01d unreachable, 75 try again later"
EXITS = f"exit codes: 0 done, {EXITS_NOT_DONE}"


class Command:
    """All there is to know of one command before it runs."""

    __slots__ = ("examples", "exits", "name", "operands", "options", "rest", "summary", "text")

    def __init__(  # noqa: PLR0913  # the row of a table
        self,
        name: str,
        summary: str,
        *,
        operands: "tuple[tuple[str, str], ...]" = (),
        rest: str = "",
        options: tuple[Option, ...] = (),
        text: str = "",
        json: bool = True,
        examples: "tuple[tuple[str, str], ...]" = (),
        exits: str = EXITS,
    ) -> None:
        self.name = name
        #: One line, as in the list of all commands.
        self.summary = summary
        #: (NAME or [NAME], what it is); the parameter is its name in small letters.
        self.operands = operands
        #: What may follow `--`.
        self.rest = rest
        self.options = (*options, JSON, HELP) if json else (*options, HELP)
        self.text = text
        #: (command line, what it does).
        self.examples = examples
        #: What its exit codes mean, in one line.
        self.exits = exits


JSON = Option("--json", "", "print the answer as JSON")
HELP = Option("-h --help", "", "show this")
YES = Option("-y --yes", "", "do not ask")
USER = Option("--user", "NAME", "act for this person (operators)", param="user")
DRY_RUN = Option("--dry-run", "", "say what would happen, and do nothing", param="dry_run")


class Given:
    """What somebody asked for."""

    __slots__ = ("operands", "options", "params", "rest")

    def __init__(self) -> None:
        #: Parameters of the request.
        self.params: dict[str, object] = {}
        #: Options for the client, by long form.
        self.options: dict[str, object] = {}
        self.operands: list[str] = []
        #: What came after `--`; None: no `--`.
        self.rest: list[str] | None = None

    def has(self, option: Option) -> bool:
        """Whether it was given."""
        return option.name in self.options

    @property
    def form(self) -> str:
        """What the answer is to be."""
        return "json" if self.has(JSON) else "text"


def parse(command: Command, words: list[str]) -> Given:
    """Read the arguments of a command; `--help` makes everything else irrelevant."""
    given = Given()
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if word == "--":
            given.rest = todo
            break
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            _take(command, given, flag, value if equals else None, todo)
        elif word.startswith("-") and word != "-":
            _cluster(command, given, word[1:], todo)
        elif len(given.operands) < len(command.operands):
            given.operands.append(word)
        else:
            raise _one_too_many(command, given, word, todo)
    if given.has(HELP):
        return given
    _operands(command, given)
    return given


def _cluster(command: Command, given: Given, letters: str, todo: list[str]) -> None:
    """`-fa`, `-t30s`, `-t 30s`."""
    while letters:
        flag, letters = f"-{letters[0]}", letters[1:]
        option = _find(command, flag)
        if option.kind == FLAG:
            _take(command, given, flag, None, todo)
        else:
            _take(command, given, flag, letters or None, todo)
            return


def _find(command: Command, flag: str) -> Option:
    for option in command.options:
        if flag in option.flags:
            return option
    from difflib import get_close_matches  # noqa: PLC0415  # slow to import, and needed by mistakes only

    known = [f for o in command.options for f in o.flags]
    near = get_close_matches(flag, known, 1, 0.75)
    raise UsageError(f"there is no option {flag}" + (f"; did you mean {near[0]}?" if near else ""))


def _take(command: Command, given: Given, flag: str, value: str | None, todo: list[str]) -> None:
    option = _find(command, flag)
    if option.kind == FLAG:
        if value is not None:
            raise UsageError(f"{flag} takes no value, and was given {value!r}")
        meant: object = True
    else:
        if value is None:
            if not todo or todo[0] == "--":
                raise UsageError(f"{flag} needs a value: {flag} {option.word}")
            value = todo.pop(0)
        meant = _meant(option, flag, value)
    given.options[option.name] = meant
    if option.param:
        given.params[option.param] = meant


def _meant(option: Option, flag: str, value: str) -> object:
    if not value:
        raise UsageError(f"{flag} needs a value, and was given an empty one: {flag} {option.word}")
    if option.kind in (WHOLE, COUNT):
        if not (value.isascii() and value.isdigit()) or len(value) > _DIGITS_MAX:
            raise UsageError(f"{flag} expects a whole number, such as {flag} 2, and was given {value!r}")
        if option.kind == COUNT and not 1 <= int(value) <= _LINES_MAX:
            raise UsageError(f"{flag} expects a number from 1 to {_LINES_MAX}, and was given {value}")
        return int(value)
    if option.kind == PATH:
        return absolute(value)
    if option.kind == SIZE and not _is_size(value):
        raise UsageError(f"{flag} expects a size, such as {flag} 40g or {flag} 512M, and was given {value!r}")
    if option.kind == SECONDS:
        return seconds(flag, value)
    return value


def _is_size(text: str) -> bool:
    """A number and a unit; the daemon knows what it is worth."""
    number = text.rstrip("kKmMgGtTiIbB")
    unit = text[len(number) :].lower()
    return number.replace(".", "", 1).isdigit() and unit in {f"{u}{rest}" for u in "kmgt" for rest in ("", "b", "ib")}


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(flag: str, text: str) -> int:
    """`90s`, `30m`, `1h30m`; a bare number could mean anything, so it means nothing."""
    total, number = 0, ""
    for letter in text:
        if letter.isascii() and letter.isdigit() and len(number) < _DIGITS_MAX:
            number += letter
        elif letter in _UNITS and number:
            total, number = total + int(number) * _UNITS[letter], ""
        else:
            raise UsageError(f"{flag} expects a duration, such as {flag} 30s or {flag} 1h30m, and was given {text!r}")
    if number:
        raise UsageError(f"{flag} expects a unit: {flag} {text}s for seconds, {flag} {text}m for minutes")
    return total


def absolute(path: str) -> str:
    """The daemon has another working directory; what the shell left of `~` is done here."""
    if path == "~" or path.startswith("~/"):
        home = posix.environ.get(b"HOME", b"").decode(errors="surrogateescape")
        return (home or "~") + path[1:]
    if path.startswith("/"):
        return path
    here = posix.getcwd()
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return here if path in ("", ".") else f"{here.rstrip('/')}/{path}"


def _one_too_many(command: Command, given: Given, word: str, todo: list[str]) -> UsageError:
    if command.rest:
        meant = " ".join([command.name, *given.operands, "--", word, *todo])
        return UsageError(f"a command comes after --, such as: {meant}")
    names = " ".join([shown for shown, _ in command.operands])
    return UsageError(f"cannot tell what {word!r} is for: {command.name} takes {names or 'no name'}")


def _operands(command: Command, given: Given) -> None:
    if given.rest and not command.rest:
        raise UsageError(f"cannot tell what {given.rest[0]!r} after -- is for")
    for (shown, _), word in zip(command.operands, given.operands, strict=False):
        name = shown.strip("[]")
        if not word:
            raise UsageError(f"{name} is empty")
        given.params[name.lower()] = word


def usage(command: Command) -> str:
    """The line that shows how it is written."""
    words = [command.name, *[shown for shown, _ in command.operands]]
    words += ["[options]"]
    words += [command.rest] if command.rest else []
    return "usage: " + " ".join(words)


def help_text(command: Command) -> str:
    """What `--help` shows."""
    parts = [usage(command), "", command.summary]
    if command.text:
        parts += ["", command.text]
    if command.operands:
        parts += ["", *[_row(shown.strip("[]"), meaning) for shown, meaning in command.operands]]
    parts += ["", *[_row(_flags(o), o.help) for o in command.options]]
    if command.examples:
        width = max(_COLUMN - 4, *[len(line) for line, _ in command.examples])
        parts += ["", "examples:", *[f"  {line:{width}}  {meaning}" for line, meaning in command.examples]]
    parts += ["", command.exits]
    return "\n".join(parts) + "\n"


def _flags(option: Option) -> str:
    flags = ", ".join(option.flags)
    if len(option.flags) == 1:
        flags = f"    {flags}"
    return f"{flags} {option.word}".rstrip()


def _row(left: str, right: str) -> str:
    return f"  {left:{_COLUMN}} {right}" if len(left) <= _COLUMN else f"  {left}\n  {'':{_COLUMN}} {right}"
