"""Figures become lines of the table, with their goals."""

from statistics import median
from typing import Final

from tests.bench.measure import ratio
from tests.bench.table import Row, quantile, spread

Figures = dict[str, list[float]]

#: Nothing else of the engine's is worth its time while nothing happens.
_CHEAP: Final = ("/containers/json", "/_ping")


def listing(took: Figures, count: int) -> list[Row]:
    """`container-list` of a user with so many containers, as a whole process, beside the engine's own listings."""
    mine, none = took["container-list, alice"], took["container-list, bob"]
    goal = 0.5 if count else 1.0
    lists = {"docker ps -a": f"{count}", "docker ps": "those that run"}
    rows = []
    for name, which in lists.items():
        found = ratio(mine, took[name])
        rows.append(
            Row(
                what=f"`container-list`, {count} containers, against `{name}`" + (f", {which}" if count else ""),
                goal=f"≤ {goal} x",
                measured=f"{found:.2f} x",
                met=found <= goal,
                numbers=(f"{spread(mine, 'ms', 1000)} against {spread(took[name], 'ms', 1000)}",),
            )
        )
    if count:
        growth, empty = ratio(mine, none), took["python3 -IS"]
        rows.append(
            Row(
                what=f"`container-list`, {count} containers against 0",
                goal="≤ 1.3 x",
                measured=f"{growth:.2f} x",
                met=growth <= 1.3,
                numbers=(f"with 0 {spread(none, 'ms', 1000)}", f"an empty Python {spread(empty, 'ms', 1000)}"),
            )
        )
    return rows


def create_start(took: Figures) -> list[Row]:
    """Create and start of a container with a GPU, beside the same two calls made directly."""
    both = {
        by: [create + start for create, start in zip(took[f"create, {by}"], took[f"start, {by}"], strict=True)]
        for by in ("ds01d", "engine")
    }
    found = ratio(both["ds01d"], both["engine"])
    more = median(both["ds01d"]) - median(both["engine"])
    return [
        Row(
            what="`container.create` + `start`, against the engine's two calls",
            goal="≤ 1.10 x",
            measured=f"{found:.2f} x (+{more * 1000:.0f} ms)",
            met=found <= 1.10,
            numbers=tuple(f"{name} {spread(values, 'ms', 1000)}" for name, values in (both | took).items()),
        )
    ]


def calls(found: Figures) -> list[Row]:
    """What a small request costs, beside a bare echo."""
    names = [name for name in found if f"{name}, requests a second" in found]
    ours, echo = found["system.status"], found["bare echo"]
    against, per_s = ratio(ours, echo), 1 / median(ours)
    numbers = tuple(
        f"{name} {spread(found[name], 'us', 1e6)}, {median(found[f'{name}, requests a second']):,.0f} a second "
        f"as its client sees it"
        for name in names
    )
    return [
        Row(
            what="`system.status`, 64 connections: CPU for each, against a bare echo",
            goal="≤ 2 x",
            measured=f"{against:.2f} x",
            met=against <= 2,
            numbers=(*numbers, f"an answer has {found['bytes'][0] / 1024:.1f} KiB"),
        ),
        Row(
            what="`system.status`, 64 connections: requests a second of one core",
            goal="≥ 12,000",
            measured=f"{per_s:,.0f}",
            met=per_s >= 12_000,
            numbers=(f"the bare echo {1 / median(echo):,.0f}",),
        ),
    ]


def view(took: Figures) -> list[Row]:
    """From the engine's kill to a listing that shows the end."""
    rows = []
    for how, goal in (("alone", 0.05), ("beside two that write", 0.1)):
        values = took[how]
        p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
        rows.append(
            Row(
                what=f"`docker kill` to `container.list`, {how}",
                goal=f"{goal * 1000:.0f} ms",
                measured=f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms",
                met=p99 <= goal,
                numbers=(spread(values, "ms", 1000),),
            )
        )
    return [*rows[:-1], _with(rows[-1], f"the kill itself {spread(took['kill'], 'ms', 1000)}")]


def _with(row: Row, number: str) -> Row:
    return Row(what=row.what, goal=row.goal, measured=row.measured, met=row.met, numbers=(*row.numbers, number))


def stalls(late: dict[str, dict[str, list[float]]], count: int) -> list[Row]:
    """How late a tick of the daemon's loop came at the worst."""
    every = [tick for one in late.values() for tick in one["daemon"]]
    worst = quantile(every, 0.999)
    said = [
        f"{name}: {_worst(one['daemon'])} (a bare loop beside it {_worst(one['bare'])})" for name, one in late.items()
    ]
    return [
        Row(
            what=f"longest stall of the event loop, {count} containers",
            goal="20 ms",
            measured=f"p99.9 {worst * 1000:.1f} ms, at most {max(every) * 1000:.1f} ms",
            met=worst <= 0.02,
            numbers=(f"{len(every):,} ticks of a millisecond", *said),
        )
    ]


def _worst(late: list[float]) -> str:
    p50, p999, most = (value * 1000 for value in (quantile(late, 0.5), quantile(late, 0.999), max(late)))
    return f"p50 {p50:.2f}, p99.9 {p999:.1f}, at most {most:.1f} ms"


def poll(found: dict[str, dict[str, float]], count: int) -> list[Row]:
    """What daemon and child take while nobody asks for anything."""
    took, spent, asked = found["took"]["s"], found["cpu"], found["calls"]
    own = sum(cpu for name, cpu in spent.items() if name != "engine") / took
    dear = {path: n for path, n in asked.items() if path not in _CHEAP}
    return [
        Row(
            what=f"poll of 8 GPUs, 56 slices and {count} containers: CPU, default intervals",
            goal="≤ 0.3 %, no `stats`, no `inspect`",
            measured=f"{own:.2%}, {f'and {dear}' if dear else 'none of either'}",
            met=own <= 0.003 and not dear,
            numbers=(
                f"in {took:.0f} s: " + ", ".join(f"{name} {cpu * 1000:.0f} ms" for name, cpu in spent.items()),
                "asked of the engine: " + (", ".join(f"{n:.0f} x {path}" for path, n in asked.items()) or "nothing"),
            ),
        )
    ]


def resync(took: Figures, count: int) -> list[Row]:
    """A listing of all that is known, and what follows from it, beside the bare call."""
    found = ratio(took["resync"], took["bare"])
    return [
        Row(
            what=f"resync of {count} known containers, against one raw list call",
            goal="≤ 2 x",
            measured=f"{found:.2f} x",
            met=found <= 2,
            numbers=tuple(f"{name} {spread(values, 'ms', 1000)}" for name, values in took.items()),
        )
    ]


def memory(used: dict[str, dict[str, int]], count: int) -> list[Row]:
    """Resident memory of the daemon and its children, which counts what they share once for each of them."""
    rss, pss = (sum(one[kind] for one in used.values()) * 1024 / 1e6 for kind in ("rss", "pss"))
    return [
        Row(
            what=f"memory of daemon and child, {count} containers",
            goal="≤ 100 MB resident",
            measured=f"{rss:.0f} MB ({pss:.0f} MB with shared pages once)",
            met=rss <= 100,
            numbers=tuple(
                f"{name} {one['rss']:,} KiB resident, {one['pss']:,} proportional" for name, one in used.items()
            ),
        )
    ]


def ready(took: list[float], count: int) -> list[Row]:
    """From `systemctl start` to READY."""
    return [
        Row(
            what=f"start to READY, {count} containers",
            goal="≤ 1.0 s",
            measured=f"{median(took):.2f} s",
            met=median(took) <= 1.0,
            numbers=(spread(took, "ms", 1000, 0),),
        )
    ]
