"""Calls as a client might send them, and what becomes of them in bad hands: JSON of every kind, right and wrong.

It knows the methods and their parameters from the daemon's own table, so that what it says is nearly right.
"""

import json
import random
import re
import string
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect as types

from ds01d.api.methods import METHODS

#: A value of JSON; an object is a list of pairs in a `Pairs`, so that a key may stand there twice.
Value: TypeAlias = Any

NAMES: Final = ("thesis", "a", "b.c", "job-1", "bob", "alice", "root", "python:3.12", "vision", "0", "1:0", "1:1")
FOUND_MAX: Final = 200
ODD_TEXTS: Final = (
    "",
    " ",
    "\0",
    "\n",
    "\x1b[2J",
    "..",
    "../..",
    "/",
    "~",
    "~root",
    "a" * 129,
    "a" * 300,
    "é" * 255,
    "\u202e\u2066",
    "\U0001f600" * 64,
    "%s%n{0}",
    "`$(id)`",
    "' OR 1=1",
    "\ufeff",
    "\x7f",
    "1e9",
    "null",
    "999999t",
    "0.001k",
    "99999d",
    "0001-01-01",
    "9999-12-31T23:59:59",
    "2026-11-20T14:20+23:59",
    "\u0661d",
)
#: Written as they stand: some of them are no JSON.
_LITERALS: Final = (
    "null true false 0 -0 -1 1.0 1e3 1e308 1e309 -1e400 0.1e-400 9007199254740993 9223372036854775808 "
    '18446744073709551616 00 1. .5 +1 NaN Infinity -Infinity nul True 0x10 1_000 [] {} [[]] {,} "\\ud800" '
    """"\\udc00\\ud800" "\\x00" "\\u12" "'" 'a' // /**/ [1,] {"a"} {"a":}"""
)
ODD_LITERALS: Final = tuple(_LITERALS.split())
SPECIAL: Final = ("__class__", "__proto__", "user", "all", "params", "id", "dry_run", "request_id", "Name", "name ")


class Pairs(list[tuple[str, Value]]):
    """An object as it is written."""


class Raw(str):
    """Written as it stands."""

    __slots__ = ()


class Speaker:
    """Makes calls; what the daemon gave out before, it uses again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._found: list[str] = ["op-1", "c-1", "0" * 64]

    def heard(self, body: bytes) -> None:
        """Remember the ids in an answer."""
        for id_ in re.findall(rb'"(?:id|exec|container|operation)":"([A-Za-z0-9_.:-]{1,128})"', body)[:5]:
            if len(self._found) < FOUND_MAX:
                self._found.append(id_.decode())
            else:
                self._found[self.rng.randrange(FOUND_MAX)] = id_.decode()

    def call(self, method: str | None = None) -> Pairs:
        """A call that may well be right."""
        rng = self.rng
        chosen = next(m for m in METHODS if m.name == method) if method else rng.choice(METHODS)
        call = Pairs([("jsonrpc", "2.0"), ("id", rng.choice((1, 7, "x", None))), ("method", chosen.name)])
        params = Pairs()
        for field in types.type_info(chosen.params).fields:  # type: ignore[attr-defined]  # parameters are structs
            if field.required or rng.random() < 0.3:
                params.append((field.encode_name, self._value(field.type)))
        # A wait is what a polite caller does; hundreds that wait for minutes are what the limits are for.
        params = Pairs([(k, 0 if k in {"wait_s", "timeout_s"} else v) for k, v in params])
        if params or rng.random() < 0.5:
            call.append(("params", params))
        if rng.random() < 0.1:
            del call[1]
        return call

    def _value(self, kind: types.Type) -> Value:
        rng = self.rng
        match kind:
            case types.UnionType(types=choices):
                return self._value(rng.choice(choices))
            case types.BoolType():
                return rng.random() < 0.5
            case types.IntType(ge=low, le=high):
                return rng.choice((low or 0, high or 100, rng.randint(low or 0, high or 100)))
            case types.FloatType(ge=low, le=high):
                return rng.choice((low or 0, rng.uniform(low or 0, high or 10)))
            case types.LiteralType(values=values):
                return rng.choice(values)
            case types.VarTupleType(item_type=item) | types.ListType(item_type=item):
                return [self._value(item) for _ in range(rng.randrange(3))]
            case types.DictType():
                return Pairs([(rng.choice(("TERM", "LC_ALL", "LD_PRELOAD", "LANG")), self._text(None))])
            case types.StrType(pattern=pattern):
                return self._text(pattern)
            case _:
                return None

    def _text(self, pattern: str | None) -> str:
        rng = self.rng
        if pattern is not None and pattern.startswith("^[0-9]"):
            return rng.choice(("20g", "0k", "999999T", "1.5GiB"))
        if pattern is not None and pattern.startswith("^/"):
            return "/workspace"
        pick = rng.random()
        if pick < 0.45:
            return rng.choice(NAMES)
        if pick < 0.75:
            return rng.choice(self._found)
        if pick < 0.85:
            return rng.choice(("/home/alice/data", "~/x", "any", "full", "mig", "2g.20gb", "2h", "gpu"))
        return "".join(rng.choices(string.ascii_lowercase + "-_.", k=rng.randint(1, 12)))

    # ---- in bad hands

    def spoilt(self) -> Value:
        """A request in which something is wrong, most of the time."""
        rng = self.rng
        value: Value = self.call()
        if rng.random() < 0.15:
            value = [self.call() for _ in range(rng.choice((0, 1, 2, 5, 20, 21, 40)))]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            value = self._spoil(value)
        if rng.random() < 0.02:
            deep = rng.choice((10, 31, 32, 33, 34, 5000))
            value = Raw("[" * deep + write(value, rng) + "]" * deep)
        return value

    def _spoil(self, value: Value) -> Value:
        """The same value with one part of it changed, somewhere inside."""
        rng = self.rng
        match value:
            case Pairs() if value and rng.random() < 0.75:
                at = rng.randrange(len(value))
                key, inner = value[at]
                made = Pairs(value)
                match rng.randrange(8):
                    case 0:
                        made.append((key, inner))
                    case 1:
                        del made[at]
                    case 2:
                        made[at] = (rng.choice((*SPECIAL, *ODD_TEXTS)), inner)
                    case 3:
                        made.insert(at, (rng.choice(SPECIAL), self._odd()))
                    case _:
                        made[at] = (key, self._spoil(inner))
                return made
            case list() if value and not isinstance(value, Pairs) and rng.random() < 0.75:
                at = rng.randrange(len(value))
                return [*value[:at], self._spoil(value[at]), *value[at + 1 :]]
            case _:
                return self._odd()

    def _odd(self) -> Value:
        rng = self.rng
        match rng.randrange(9):
            case 0 | 1 | 2:
                return rng.choice(ODD_TEXTS)
            case 3 | 4:
                return Raw(rng.choice(ODD_LITERALS))
            case 5:
                return [rng.choice(ODD_TEXTS)[:9]] * rng.choice((1, 3, 100, 100, 100, 5000))
            case 6:
                return Pairs([(f"k{n}", n) for n in range(rng.choice((0, 1, 50, 50, 50, 5001)))])
            case 7:
                return rng.choice(ODD_TEXTS[3:]) * rng.choice((1, 100, 1000, 2500))
            case _:
                return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0xD800)))) for _ in range(9))


def write(value: Value, rng: random.Random) -> str:
    """A value as text, written in one of the ways in which JSON may be."""
    match value:
        case Raw():
            return str(value)
        case Pairs():
            inside = (f"{_string(k, rng)}{_gap(rng)}:{_gap(rng)}{write(v, rng)}" for k, v in value)
            return "{" + f",{_gap(rng)}".join(inside) + "}"
        case list() | tuple():
            return "[" + ",".join(write(v, rng) for v in value) + "]"
        case str():
            return _string(value, rng)
        case _:
            return json.dumps(value)


def _string(text: str, rng: random.Random) -> str:
    pick = rng.random()
    if pick < 0.1:
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in text) + '"'
    return json.dumps(text, ensure_ascii=pick < 0.5)


def _gap(rng: random.Random) -> str:
    return rng.choice(("", "", "", " ", "\n\t", "  \r"))


def gnawed(body: bytes, rng: random.Random) -> bytes:
    """Bytes with some of them flipped, cut out, doubled or put in."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.choice((1, 2, 40))]
            case 2:
                data[at:at] = data[at : at + rng.choice((1, 10, 200))]
            case 3:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 3))))
            case 4:
                data[at:at] = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\0", b"\xc0\xaf"))
            case _:
                del data[at:]
    return bytes(data)


def meant(body: bytes) -> object:
    """What a lenient reader would take a body for; None where it is no JSON at all."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return value
