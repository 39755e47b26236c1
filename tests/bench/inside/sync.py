"""A listing of the whole engine, as the daemon takes it in, beside the bare call: the daemon's own parts, in here."""

import asyncio
import time
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
    """Seconds for all that there is and what follows from it, for the latter alone, and for the bare call."""
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
    found: dict[str, list[float]] = {name: [] for name in ("resync", "bare", "decision")}
    for n in range(rounds + 2):
        for what in ("bare", "resync") if n % 2 else ("resync", "bare"):
            began = time.perf_counter()
            if what == "bare":
                raw.engine("GET", "/containers/json?all=1")
                parts = {"bare": time.perf_counter() - began}
            else:
                await listing.relisted()
                told = time.perf_counter()
                handle(state, relisted, now)
                decided = time.perf_counter()
                parts = {"resync": decided - began, "decision": decided - told}
            for name, took in parts.items() if n >= 2 else ():
                found[name].append(took)
    await engine.close()
    return found
