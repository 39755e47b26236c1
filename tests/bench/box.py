"""What is measured in a box: commands, requests, memory and start-up of the daemon as it is installed."""

import json
import shutil
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from tests.bench.measure import ratio
from tests.bench.table import Row, spread
from tests.testbed.server import Server

HERE: Final = Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent.parent
#: Containers that lie there, all of one user.
MANY: Final = 100
#: What the core needs besides the daemon that is installed.
BROUGHT: Final = ("__init__.py", "core/__init__.py", "core/world.py")
#: Everybody may have as much as he likes, so that one user can own all of it.
POLICY: Final = """\
defaults:
  max_mig_instances: null
  max_gpu_equivalents: null
  max_containers_per_user: null
groups: {student: {}, researcher: {}, admin: {}}
"""


class Bench:
    """A server with the bench's own programs in it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        tests = server.shared / "bench" / "tests"
        for name in BROUGHT:
            (tests / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE.parent / name, tests / name)
        shutil.copytree(HERE, tests / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        server.write("/etc/ds01/resource-limits.yaml", POLICY)
        server.exec("systemctl", "restart", "ds01d.service")

    def ask(self, what: str, number: int = 0) -> Any:  # noqa: ANN401  # each measure has its own shape
        """One measure of `inside.py`."""
        done = self._server.exec(
            "python3", "-B", "/host/bench/tests/bench/inside.py", what, str(number), timeout=300, own_cgroup=True
        )
        return json.loads(done.stdout)

    def core(self) -> list[Row]:
        """The core's lines, by the Python that the daemon runs under."""
        paths = "/host/bench:/usr/lib/ds01/python"
        command = ("python3", "-B", "-m", "tests.bench", "core", "--json")
        done = self._server.exec(*command, env={"PYTHONPATH": paths}, timeout=300, own_cgroup=True)
        return msgspec.json.decode(done.stdout, type=list[Row])


def rows() -> list[Row]:
    """Everything that needs a box, and the core in it."""
    with Server() as server:
        bench = Bench(server)
        start = [_ready(bench, 0)]
        alone = _listing(bench, 0)
        work = _create_start(bench)
        filled = bench.ask("fill", MANY)
        many = _listing(bench, MANY)
        used = _memory(bench)
        start.append(_ready(bench, MANY))
        made = Row(
            what=f"container.create without a GPU, {MANY} in a row",
            goal="",
            measured=f"{filled / MANY * 1000:.0f} ms each",
            met=None,
        )
        return [*many, *alone, *work, made, *bench.core(), used, *start]


def _listing(bench: Bench, count: int) -> list[Row]:
    """`container-list` of a user with so many containers, as a whole process, beside `docker ps` of the same ones."""
    took = bench.ask("commands", 25)
    mine, none, engine = (took[name] for name in ("container-list, alice", "container-list, bob", "docker ps -a"))
    goal = 0.5 if count else 1.0
    found = ratio(mine, engine)
    rows = [
        Row(
            what=f"container-list, {count} containers, against docker ps -a",
            goal=f"<= {goal} x",
            measured=f"{found:.2f} x",
            met=found <= goal,
            numbers=(
                *(f"{name}: {spread(took[name], 'ms', 1000)}" for name in took if not name.endswith("bob")),
                f"against docker ps, which leaves out what does not run: {ratio(mine, took['docker ps']):.2f} x",
            ),
        )
    ]
    if count:
        growth = ratio(mine, none)
        rows.append(
            Row(
                what=f"container-list, {count} containers against 0",
                goal="<= 1.3 x",
                measured=f"{growth:.2f} x",
                met=growth <= 1.3,
                numbers=(f"with 0: {spread(none, 'ms', 1000)}",),
            )
        )
    return rows


def _create_start(bench: Bench) -> list[Row]:
    """Create and start of a container with a GPU, beside the same two calls made directly."""
    took = bench.ask("pairs", 15)
    both = {
        by: [create + start for create, start in zip(took[f"create, {by}"], took[f"start, {by}"], strict=True)]
        for by in ("ds01d", "engine")
    }
    found = ratio(both["ds01d"], both["engine"])
    return [
        Row(
            what="container.create + start, against the engine's two calls",
            goal="<= 1.15 x",
            measured=f"{found:.2f} x",
            met=found <= 1.15,
            numbers=tuple(f"{name}: {spread(values, 'ms', 1000, 0)}" for name, values in (took | both).items()),
        )
    ]


def _memory(bench: Bench) -> Row:
    """Resident memory of the daemon and its children, which counts what they share once for each of them."""
    used = bench.ask("memory")
    rss, pss = (sum(one[kind] for one in used.values()) / 1024 for kind in ("rss", "pss"))
    return Row(
        what=f"memory of daemon and child, {MANY} containers",
        goal="<= 100 MB",
        measured=f"{rss * 1.048576:.0f} MB resident",
        met=rss * 1.048576 <= 100,
        numbers=(
            f"proportional (shared pages once): {pss * 1.048576:.0f} MB",
            *(f"{name}: {one['rss']} KiB resident, {one['pss']} KiB proportional" for name, one in used.items()),
        ),
    )


def _ready(bench: Bench, count: int) -> Row:
    """From `systemctl start` to READY."""
    took = bench.ask("ready", 7)
    return Row(
        what=f"start to READY, {count} containers",
        goal="<= 1.0 s",
        measured=f"{median(took):.2f} s",
        met=median(took) <= 1.0,
        numbers=(spread(took, "ms", 1000, 0),),
    )
