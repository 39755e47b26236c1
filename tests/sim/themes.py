"""What a history may be about. Rare things meet only when all of them are led to each other.

A theme says how many times as often some moves come, and may say in what world. Histories without a theme are as
important: nobody knows what to lead to what.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

_NOTHING: Mapping[str, float] = MappingProxyType({})
_AS_IT_COMES: Mapping[str, object] = MappingProxyType({})


class Theme(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as often these moves come, and what is different in its world."""

    moves: Mapping[str, float] = _NOTHING
    setup: Mapping[str, object] = _AS_IT_COMES


THEMES: Mapping[str, Theme] = {
    "none": Theme(),
    "ghosts": Theme(
        moves={
            "engine dies in a start": 8,
            "raw start": 6,
            "silence": 4,
            "engine comes": 0.5,
            "reconnect unaware": 20,
            "reconnect": 0.05,
            "opens": 0.2,
            "start": 0.5,
            "ends": 0.5,
            "crash": 0.1,
            "reboot": 0,
            "fault of ours": 0,
            "wipe": 0,
            "engine made anew": 0,
        },
        setup={"odd_cgroups": False},
    ),
    "older states": Theme(
        moves={
            "crash": 2,
            "restore": 30,
            "file breaks": 3,
            "raw start": 8,
            "park": 4,
            "start": 2,
            "create": 2,
            "engine made anew": 0,
            "recut": 0,
            "card lost": 0,
            "reboot": 0,
            "stranger": 0,
            "minors": 0,
        },
        setup={"cards": (0,), "users": 2, "each": 2, "hold_s": None, "counts": (1,)},
    ),
    "names again": Theme(
        moves={
            "remove": 15,
            "force": 15,
            "create": 4,
            "raw start": 6,
            "opens": 0.1,
            "crash": 3,
            "restore": 30,
            "engine made anew": 0,
            "recut": 0,
            "card lost": 0,
            "reboot": 0,
            "stranger": 0,
        },
        setup={"cards": (0,), "users": 2, "each": 1, "hold_s": None, "counts": (1,)},
    ),
    "late caches": Theme(
        moves={
            "refresh": 0.02,
            "raw start": 8,
            "park": 5,
            "start": 3,
            "crash": 2,
            "restore": 15,
            "file breaks": 10,
            "recut": 0,
            "card lost": 0,
            "reboot": 0,
            "stranger": 0,
        },
        setup={"cards": (0, 0), "users": 2, "each": 1, "hold_s": 60.0, "counts": (1,)},
    ),
    "new numbers": Theme(moves={"crash": 3, "minors": 30, "ends": 3, "recut": 3, "refresh": 0.3}),
    "removals": Theme(
        moves={"remove": 20, "force": 10, "create": 3, "engine dies": 15, "engine comes": 0.5, "break": 5},
        setup={"counts": (0, 1)},
    ),
    "listings": Theme(moves={"ask listing": 20, "listing": 0.3, "create": 6, "hint": 0.3}),
    "unread sessions": Theme(moves={"unread": 30, "stop": 4, "force": 4, "start": 3}),
    "late calls": Theme(
        moves={"break": 40, "execute": 0.05, "create": 6, "raw start": 0, "crash": 0.3},
        setup={"cards": (0,), "each": 3, "counts": (1,)},
    ),
    "another engine": Theme(
        moves={"engine made anew": 20, "old engine back": 10, "raw start": 3, "park": 3, "remove": 3, "reboot": 0},
        setup={"odd_cgroups": False},
    ),
    "failing writes": Theme(moves={"write fails": 15, "raw start": 6, "park": 4, "start": 2}),
    "the CPU alone": Theme(moves={"raw start": 4, "engine dies in a start": 4}, setup={"counts": (0,)}),
    "vandals": Theme(moves={"wipe": 20, "ask listing": 4}, setup={"counts": (0, 1)}),
    "lingering": Theme(
        moves={"ends, lingering": 20, "let go": 0.1, "blind": 10, "much later": 5, "opens": 6, "ends": 0.1},
    ),
    "cards come and go": Theme(moves={"card lost": 20, "recut": 10, "start": 3, "picture": 4}),
    "strangers": Theme(moves={"stranger": 20, "stranger leaves": 0.2, "blind": 10, "picture": 3, "park": 3}),
    "faults of ours": Theme(moves={"fault of ours": 40, "write hangs": 10, "much later": 3, "raw start": 3, "park": 3}),
    "stuck writes": Theme(moves={"write hangs": 15, "mended: write": 0.3, "much later": 4, "park": 2, "raw start": 3}),
    "raw starts": Theme(
        moves={"raw start": 15, "park": 6, "opens": 0.1, "advance": 0.2, "later": 5, "much later": 3, "hint": 0.2}
    ),
    "a wrong cgroup": Theme(
        moves={
            "raw start": 20,
            "park": 8,
            "opens": 0.05,
            "advance": 0.3,
            "hint": 0.05,
            "later": 3,
            "much later": 8,
            "ask listing": 0.2,
            "engine dies": 10,
            "engine comes": 0.3,
            "start": 0.2,
            "ends": 0.2,
        },
        setup={"odd_cgroups": True, "counts": (1,)},
    ),
}
