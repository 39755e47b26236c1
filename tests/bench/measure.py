"""Runs that are compared take turns, so that whatever else the machine does hits each of them alike."""

from collections.abc import Callable, Mapping
from statistics import median


def take_turns(what: Mapping[str, Callable[[], float]], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Each measure in every round, the order turned each time; the first `warm` rounds are thrown away."""
    found: dict[str, list[float]] = {name: [] for name in what}
    names = list(what)
    for n in range(warm + rounds):
        for name in names if n % 2 == 0 else reversed(names):
            value = what[name]()
            if n >= warm:
                found[name].append(value)
    return found


def ratio(one: list[float], other: list[float]) -> float:
    """The median of one over that of the other."""
    return median(one) / median(other)
