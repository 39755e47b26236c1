"""A listing of the whole engine, as the daemon takes it in, beside the bare call: the daemon's own parts, in here."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from ds01d.adapters.cdi import Permissions
from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.engine_listing import EngineListing
from ds01d.app.joints import Places
from ds01d.core.core import handle
from tests.bench.inside.door import ENGINE, Door
from tests.bench.traffic import relisting


def resync(rounds: int) -> dict[str, list[float]]:
    """Seconds for the engine's listing and all that follows from it, for its parts, and for the bare call."""
    return asyncio.run(_resync(rounds))


async def _resync(rounds: int) -> dict[str, list[float]]:
    places = Places()
    permissions = Permissions(
        grant_dir=places.run / "grant", cdi_dir=places.cdi, guard=places.guard, vendor_dirs=places.vendor_cdi
    )
    engine = DockerEngine(Path(ENGINE), init=places.init)
    listing = EngineListing(
        engine, cgroups=Cgroups(), permissions=permissions.seen, post=lambda _: None, revision=lambda: 0
    )
    raw = Door(ENGINE)
    met = len((await listing.read()).containers)
    state, relisted, now = relisting(met)
    found: dict[str, list[float]] = {name: [] for name in ("resync", "bare", "read", "permissions", "decision")}
    for n in range(rounds + 2):
        for what in ("bare", "resync") if n % 2 else ("resync", "bare"):
            began = time.perf_counter()
            if what == "bare":
                raw.engine("GET", "/containers/json?all=1")
                parts = {"bare": time.perf_counter() - began}
            else:
                await listing.read()
                read = time.perf_counter()
                await asyncio.to_thread(permissions.seen)
                seen = time.perf_counter()
                decided = _timed(lambda: handle(state, relisted, now))
                parts = {"read": read - began, "permissions": seen - read, "decision": decided}
                parts["resync"] = sum(parts.values())
            for name, took in parts.items() if n >= 2 else ():
                found[name].append(took)
    await engine.close()
    return found


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
