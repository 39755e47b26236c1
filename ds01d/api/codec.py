"""Bytes to values and back, strictly: what cannot be meant is refused with its place, never guessed at."""

import json
import re
from collections import deque
from typing import Any, TypeVar

import msgspec

from ds01d.api.params import FORMS

#: JSON-RPC 2.0's own numbers for protocol faults.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

_DEPTH_MAX = 32
#: A body of 1 MiB may hold a few long strings; one of half a million numbers keeps others waiting.
_VALUES_MAX = 10_000
_STRING = re.compile(rb'"[^"]*"')

S = TypeVar("S", bound=msgspec.Struct)


class Fault(Exception):
    """The request cannot be understood: the caller broke the protocol."""

    def __init__(self, code: int, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind
        self.message = message
        self.hint = hint


def parse_error(message: str) -> Fault:
    """The body is not the JSON that it has to be."""
    return Fault(PARSE_ERROR, "parse_error", f"cannot read the request: {message}")


def invalid_request(message: str) -> Fault:
    """The JSON is not a JSON-RPC request."""
    return Fault(
        INVALID_REQUEST,
        "invalid_request",
        f"cannot take this as a request: {message}",
        'send {"jsonrpc": "2.0", "id": 1, "method": "system.status", "params": {}}',
    )


def decode(body: bytes) -> Any:  # noqa: ANN401  # whatever JSON it is; the next step gives it a type
    """JSON that says one thing only: UTF-8, no key twice, not deep, not of too many parts."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as e:
        raise parse_error(f"byte {e.start} is not UTF-8") from None
    except msgspec.MsgspecError as e:
        raise parse_error(_lower(str(e))) from None
    if _as_we_write_it(body, value):
        return value
    bare = _bare(body)
    if bare.count(b",") > _VALUES_MAX:
        raise parse_error(f"more than {_VALUES_MAX} values")
    if bare.count(b":") != _count_pairs(value):
        raise parse_error(f"the key {_twice(body)} stands there twice")
    return value


def convert(value: object, to: type[S]) -> S:
    """Parameters as their declared type; unknown fields and wrong types are refused with their place."""
    try:
        return msgspec.convert(value, to, strict=True)
    except msgspec.ValidationError as e:
        what, _, place = str(e).partition(" - at ")
        path = place.strip("`").replace("$", "params", 1) if place else "params"
        # A pattern is for programs.
        said = next((f"expected {words}" for pattern, words in FORMS.items() if repr(pattern) in what), None)
        meant = said or _lower(what).replace("`", "")
        raise Fault(
            INVALID_PARAMS,
            "invalid_params",
            f"cannot take {path}: {meant}",
            _known(to) if "field" in what else "",
        ) from None


def encode(value: object) -> bytes:
    """A value as JSON."""
    return msgspec.json.encode(value)


def _known(to: type[msgspec.Struct]) -> str:
    names = [f.encode_name for f in msgspec.structs.fields(to)]
    return f"it takes {', '.join(names)}" if names else "it takes no parameters"


def _as_we_write_it(body: bytes, value: object) -> bool:
    """Whether it is just what comes out when its value is written again: then no key of it is there twice."""
    small = body.count(b"{") + body.count(b"[") <= _DEPTH_MAX and body.count(b",") <= _VALUES_MAX
    return small and encode(value) == body


def _bare(body: bytes) -> bytes:
    """JSON without its strings. Backslashes stand in strings only, and pair up from the left as `replace` does."""
    return _STRING.sub(b"", body.replace(b"\\\\", b"").replace(b'\\"', b""))


def _count_pairs(value: object) -> int:
    """How many key-value pairs a value holds; refuses a deep one."""
    pairs, level, depth = 0, [value], 0
    while level:
        below: list[object] = []
        for v in level:
            if isinstance(v, dict):
                pairs += len(v)
                below.extend(v.values())
            elif isinstance(v, list):
                below.extend(v)
        if any(isinstance(v, dict | list) for v in level):
            depth += 1
        if depth > _DEPTH_MAX:
            raise _too_deep()
        level = below
    return pairs


def _too_deep() -> Fault:
    return parse_error(f"nested deeper than {_DEPTH_MAX}")


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as they were written, twice or not."""


def _twice(body: bytes) -> str:
    """The path of the first key that an object has twice."""
    todo: deque[tuple[str, Any]] = deque([("", json.loads(body, object_pairs_hook=_Pairs))])
    while todo:
        path, value = todo.popleft()
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                place = f"{path}.{key}" if path else key
                if key in seen:
                    return place
                seen.add(key)
                todo.append((place, inner))
        elif isinstance(value, list):
            todo.extend((f"{path}[{i}]", inner) for i, inner in enumerate(value))
    return "of an object"


def _lower(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
