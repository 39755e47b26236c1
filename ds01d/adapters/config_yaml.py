"""YAML as places and texts: every value keeps its line, and nothing is guessed. What the keys mean is not told here.

YAML's own idea of a value is not taken over: to it `1:30` is the number 90, `010` is 8 and `no` is false. A value is
read from its text as it stands in the file, by the reader that its key has.
"""

import math
import re
from collections.abc import Callable
from typing import TypeVar

import yaml

from ds01d.model.complaint import Complaint
from ds01d.model.units import parse_duration, parse_size

T = TypeVar("T")
Reader = Callable[[yaml.Node], T]

#: A configuration is a few hundred lines; more nesting or size is a mistake, and hard on a parser.
_BYTES_MAX = 1 << 20
_DEPTH_MAX = 16

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR = (_TAG + kind for kind in ("null", "bool", "int", "float", "str"))
#: A longer number is none that anybody means, and Python refuses to read the longest.
DIGITS_MAX = 18
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Wrong(Exception):
    """A value that its key cannot have; the message says what was expected."""


class Sheet:
    """One file under reading. Complaints gather; the caller takes nothing from a sheet that has any."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.complaints: list[Complaint] = []

    def complain(self, node: yaml.Node | None, key: str, message: str) -> None:
        """Note what is wrong here."""
        line = node.start_mark.line + 1 if node is not None else 0
        self.complaints.append(Complaint(file=self.file, line=line, key=key, message=message))

    def open(self, raw: bytes) -> yaml.Node | None:
        """The root of the document; None: it is empty, or not YAML (then there is a complaint)."""
        try:
            return _compose(raw)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 0
            message = f"this is not YAML: {error.problem or error.context}"
            self.complaints.append(Complaint(file=self.file, line=line, key="", message=message))
            return None
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            self.complaints.append(Complaint(file=self.file, line=line, key="", message="this is not UTF-8"))
            return None
        except (yaml.YAMLError, Wrong) as error:
            self.complaints.append(Complaint(file=self.file, line=0, key="", message=f"cannot be read: {error}"))
            return None

    def section(self, node: yaml.Node | None, path: str) -> dict[str, yaml.Node]:
        """The keys of a mapping; one that is not there, or empty, has none."""
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, path, f"expected keys and values, got {shown(node)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain(key_node, path, "a key has to be a plain word")
                continue
            key = str(key_node.value)
            if key in found:
                first = found[key].start_mark.line + 1
                self.complain(key_node, join(path, key), f"stands here twice: line {first} has it too")
                continue
            found[key] = value
        return found

    def read(self, node: yaml.Node, key: str, reader: Reader[T], otherwise: T) -> T:
        """The value of one key, or `otherwise` with a complaint."""
        try:
            return reader(node)
        except Wrong as wrong:
            self.complain(node, key, str(wrong))
            return otherwise


def join(path: str, key: str) -> str:
    """The full name of a key."""
    return f"{path}.{key}" if path else key


def shown(node: yaml.Node) -> str:
    """A value in words, for a complaint."""
    match node:
        case yaml.ScalarNode(value=value):
            return "nothing" if _is_null(node) else f"`{value}`"
        case yaml.SequenceNode():
            return "a list"
        case _:
            return "keys and values"


def or_null(reader: Reader[T]) -> Reader[T | None]:
    """The same, where null has a meaning."""

    def read(node: yaml.Node) -> T | None:
        return None if _is_null(node) else reader(node)

    return read


def text(node: yaml.Node) -> str:
    """Words; a number is a word here, because names may be numbers."""
    if not isinstance(node, yaml.ScalarNode) or _is_null(node) or not node.value:
        raise Wrong(f"expected a text, got {shown(node)}")
    if any(ord(letter) < ord(" ") for letter in node.value):
        raise Wrong("expected one line of text without control characters")
    return str(node.value)


def texts(node: yaml.Node) -> tuple[str, ...]:
    """A list of words."""
    if not isinstance(node, yaml.SequenceNode):
        raise Wrong(f"expected a list, got {shown(node)}")
    return tuple(text(item) for item in node.value)


def boolean(node: yaml.Node) -> bool:
    """`true` or `false`; YAML's yes, no, on and off are not for telling apart from names."""
    value = node.value if isinstance(node, yaml.ScalarNode) and node.tag == _BOOL else None
    if value not in ("true", "false"):
        raise Wrong(f"expected true or false, got {shown(node)}")
    return bool(value == "true")


def whole(least: int, most: int | None = None) -> Reader[int]:
    """A whole number within bounds."""

    def read(node: yaml.Node) -> int:
        if node.tag != _INT or not _WHOLE.fullmatch(node.value):
            raise Wrong(f"expected a whole number, got {shown(node)}")
        if len(node.value) > DIGITS_MAX:
            raise Wrong("expected a whole number that means something here")
        value = int(node.value)
        _within(value, node, least, most)
        return value

    return read


def number(more_than: float | None = None) -> Reader[float]:
    """A number, 0 or more, or more than a bound."""

    def read(node: yaml.Node) -> float:
        if node.tag not in (_INT, _FLOAT) or not _DECIMAL.fullmatch(node.value):
            raise Wrong(f"expected a number, got {shown(node)}")
        value = float(node.value)
        if more_than is not None and value <= more_than:
            raise Wrong(f"expected more than {more_than:g}, got {shown(node)}")
        _within(value, node, 0, None)
        return value

    return read


def duration(unit: str, least: float = 0.0) -> Reader[float]:
    """Seconds; a bare number is refused with the unit that was probably meant."""

    def read(node: yaml.Node) -> float:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (_INT, _FLOAT, _STR):
            raise Wrong(f"expected a duration such as `30m`, got {shown(node)}")
        try:
            seconds = parse_duration(node.value, unit)
        except ValueError as error:
            raise Wrong(str(error)) from None
        if seconds < least:
            raise Wrong(f"expected at least {least:g}s, got {shown(node)}")
        return seconds

    return read


def size(least: int = 1) -> Reader[int]:
    """Bytes, at least so many."""

    def read(node: yaml.Node) -> int:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (_INT, _FLOAT, _STR):
            raise Wrong(f"expected a size such as `32g`, got {shown(node)}")
        try:
            found = parse_size(node.value)
        except ValueError as error:
            raise Wrong(str(error)) from None
        if found < least:
            raise Wrong(f"expected at least {least} bytes, got {shown(node)}")
        return found

    return read


def _within(value: float, node: yaml.Node, least: float, most: float | None) -> None:
    if not math.isfinite(value) or value < least or (most is not None and value > most):
        bounds = f"{least:g} or more" if most is None else f"{least:g} to {most:g}"
        raise Wrong(f"expected {bounds}, got {shown(node)}")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _compose(raw: bytes) -> yaml.Node | None:
    """The document; deep nesting is refused before the composer, which recurses, meets it."""
    if len(raw) > _BYTES_MAX:
        raise Wrong(f"the file is larger than {_BYTES_MAX >> 20} MiB")
    document = raw.decode()
    depth = 0
    for event in yaml.parse(document, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                raise Wrong(f"lists and keys are nested more than {_DEPTH_MAX} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    root: yaml.Node | None = yaml.compose(document, Loader=yaml.CSafeLoader)
    return root
