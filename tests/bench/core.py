"""How many events the core decides in a second, with its laws and its encoding, in one process and without a box."""

import gc
import platform
import time
from functools import partial
from statistics import median
from typing import Final

from ds01d.core.snapshot import dump
from tests.bench.measure import ratio, take_turns
from tests.bench.table import Row, spread
from tests.bench.traffic import GPUS, SLICES, Traffic, record, replay

EVENTS: Final = 10_000
ROUNDS: Final = 5
PER_SECOND: Final = 30_000
GROWTH: Final = 1.3


def rows() -> list[Row]:
    """The core's lines of the table."""
    traffic = {"100": record(100, EVENTS), "1,000": record(1000, EVENTS)}
    took = take_turns({name: partial(_seconds_per_event, t) for name, t in traffic.items()}, ROUNDS)
    found = []
    for name, seconds in took.items():
        rate = 1 / median(seconds)
        found.append(
            Row(
                what=f"a decision in the core, {GPUS} GPUs x {SLICES} slices, {name} containers",
                goal=f"≥ {PER_SECOND:,} events/s",
                measured=f"{rate:,.0f} events/s",
                met=rate >= PER_SECOND,
                numbers=(
                    spread(seconds, "us of CPU an event", 1e6),
                    f"{len(traffic[name].measured):,} events a run; Python {platform.python_version()}",
                ),
            )
        )
    growth = ratio(took["1,000"], took["100"])
    found.append(
        Row(
            what="a decision in the core, 1,000 containers against 100",
            goal=f"≤ {GROWTH} x",
            measured=f"{growth:.2f} x",
            met=growth <= GROWTH,
            numbers=(f"state as bytes: {', '.join(_dumping(name, t) for name, t in traffic.items())}",),
        )
    )
    return found


def _seconds_per_event(traffic: Traffic) -> float:
    state = traffic.fresh()
    gc.collect()
    began = time.thread_time()
    replay(state, traffic.measured)
    return (time.thread_time() - began) / len(traffic.measured)


def _dumping(name: str, traffic: Traffic) -> str:
    """What the loop pays for a save besides: the join of all records."""
    state = traffic.fresh()
    began = time.thread_time()
    body = dump(state)
    return f"{(time.thread_time() - began) * 1000:.1f} ms for {len(body) // 1024} KiB at {name}"
