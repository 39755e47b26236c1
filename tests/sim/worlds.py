"""The tiny worlds of the explorer: what happened before, and how often what may happen."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from tests.sim.daemon import Setup


class Tiny(msgspec.Struct, frozen=True, kw_only=True):
    """A tiny world. Whatever its bounds do not name may happen at any time, or never at all (see the explorer)."""

    setup: Setup
    #: These moves, each with all that follows from it.
    before: tuple[tuple[str, int], ...]
    bounds: Mapping[str, int]


_ALONE = Setup(cards=(0,), users=1, each=1)
_TWO = Setup(cards=(0,), users=2, each=1)
_TWO_SLOTS = Setup(cards=(2,), users=2, each=1)
_HELD = (("create", 0),)
_PARKED = (("create", 0), ("park", 0))
_HANDED_ON = (*_PARKED, ("create", 0))
_BOTH_PARKED = (*_PARKED, ("create", 0), ("park", 1))


def _tiny(setup: Setup, before: tuple[tuple[str, int], ...], **bounds: int) -> Tiny:
    return Tiny(setup=setup, before=before, bounds={name.replace("_", " "): n for name, n in bounds.items()})


#: Small enough for every run of the tests; each is about another neighbour of a start and a release.
WORLDS: Mapping[str, Tiny] = MappingProxyType(
    {
        "a life": _tiny(_ALONE, (), create=1, start=1, stop=1, force=1),
        "a life, a crash": _tiny(_ALONE, (), create=1, start=1, remove=1, crash=1),
        "a start and a release, a crash": _tiny(_ALONE, _PARKED, start=1, park=1, crash=1),
        "a start, two crashes": _tiny(_ALONE, _PARKED, start=1, crash=2),
        "a release, two crashes": _tiny(_ALONE, _HELD, park=1, crash=2),
        "a start and a release, the engine dies": _tiny(_ALONE, _PARKED, start=1, park=1, engine_dies=1),
        "a start and a release, a raw start": _tiny(_ALONE, _PARKED, start=1, park=1, raw_start=1),
        "a release, a raw start, a crash": _tiny(_ALONE, _HELD, park=1, raw_start=1, crash=1),
        "a release, two raw starts": _tiny(_ALONE, _HELD, park=1, raw_start=2),
        "a release, a raw start, the engine dies": _tiny(_ALONE, _HELD, park=1, raw_start=1, engine_dies=1),
        "a start, a crash, the engine dies": _tiny(_ALONE, _PARKED, start=1, crash=1, engine_dies=1),
        "a start and a release, two crashes": _tiny(_ALONE, _PARKED, start=1, park=1, crash=2),
        "a start and a release, two raw starts": _tiny(_ALONE, _PARKED, start=1, park=1, raw_start=2),
        "one slot for two": _tiny(_TWO, _BOTH_PARKED, start=2),
        "two slots for two": _tiny(_TWO_SLOTS, _BOTH_PARKED, start=2),
        "one slot handed on": _tiny(_TWO, _HANDED_ON, park=1, start=1),
        "one slot handed on, a crash": _tiny(_TWO, _HANDED_ON, park=1, start=1, crash=1),
        "one slot handed on, the engine dies": _tiny(_TWO, _HANDED_ON, park=1, start=1, engine_dies=1),
        "one slot handed on, two raw starts": _tiny(_TWO, _HANDED_ON, park=1, start=1, raw_start=2),
    }
)
_EVERYTHING = {"crash": 2, "engine_dies": 1, "raw_start": 2}
#: These take from minutes to days (docs/decisions/0010 tells which were gone through): `make explore WORLD='…'`.
LARGE: Mapping[str, Tiny] = MappingProxyType(
    {
        "one slot handed on, two crashes": _tiny(_TWO, _HANDED_ON, park=1, start=1, crash=2),
        "one slot handed on, a crash, the engine dies": _tiny(
            _TWO, _HANDED_ON, park=1, start=1, crash=1, engine_dies=1
        ),
        "one slot handed on, a crash, a raw start": _tiny(_TWO, _HANDED_ON, park=1, start=1, crash=1, raw_start=1),
        "one slot handed on, the engine dies, a raw start": _tiny(
            _TWO, _HANDED_ON, park=1, start=1, engine_dies=1, raw_start=1
        ),
        "one slot handed on, one of each": _tiny(
            _TWO, _HANDED_ON, park=1, start=1, crash=1, engine_dies=1, raw_start=1
        ),
        "two slots for two, a crash": _tiny(_TWO_SLOTS, _BOTH_PARKED, start=2, crash=1),
        "two slots for two, the engine dies": _tiny(_TWO_SLOTS, _BOTH_PARKED, start=2, engine_dies=1),
        "two slots for two, a raw start": _tiny(_TWO_SLOTS, _BOTH_PARKED, start=2, raw_start=1),
        "a start, everything": _tiny(_ALONE, _PARKED, start=1, **_EVERYTHING),
        "a release, everything": _tiny(_ALONE, _HELD, park=1, **_EVERYTHING),
        "a start and a release, everything": _tiny(_ALONE, _PARKED, start=1, park=1, **_EVERYTHING),
        "one slot handed on, everything": _tiny(_TWO, _HANDED_ON, park=1, start=1, **_EVERYTHING),
        "two slots for two, everything": _tiny(_TWO_SLOTS, _BOTH_PARKED, start=2, park=2, **_EVERYTHING),
    }
)
