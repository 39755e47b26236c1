"""What is measured in a box: the daemon as it is installed, with a real engine and as many GPUs as a server has."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench import rows_of
from tests.bench.table import Row
from tests.bench.traffic import GPUS, SLICES
from tests.testbed.nvml.cards import GpuLayout, Layout
from tests.testbed.server import Server

HERE: Final = Path(__file__).resolve().parent
#: Containers that lie there, all of one user.
MANY: Final = 100
CALLERS: Final = 64
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
        callers = (f"caller{n}:x:{5000 + n}:100::/nonexistent:/usr/sbin/nologin" for n in range(CALLERS))
        server.write("/etc/passwd", server.file("/etc/passwd") + "\n".join(callers) + "\n")
        server.exec("systemctl", "restart", "ds01d.service")

    def ask(self, what: str, number: int = 0) -> Any:  # noqa: ANN401  # each measure has its own shape
        """One measure of `inside`."""
        return json.loads(self._python("tests.bench.inside", what, str(number)))

    def core(self) -> list[Row]:
        """The core's lines, by the Python that the daemon runs under."""
        return msgspec.json.decode(self._python("tests.bench", "core", "--json"), type=list[Row])

    def _python(self, module: str, *args: str) -> str:
        command = ("python3", "-B", "-m", module, *args)
        env = {"PYTHONPATH": "/host/bench:/usr/lib/ds01/python"}
        return self._server.exec(*command, env=env, timeout=300, own_cgroup=True).stdout

    def fill(self) -> list[Row]:
        """Containers that lie there, and a process on each slot that one of them runs on; it is no row."""
        for slot, pid in self.ask("fill", MANY).items():
            gpu, _, part = slot.partition(":")
            card = self._server.nvml.gpu(int(gpu))
            card.add_process(pid, 2000, card.slices[int(part)].gi)
        return []


def _steps(bench: Bench) -> dict[str, Callable[[], list[Row]]]:
    """Everything in its order; what comes after `fill` finds a full machine."""
    return {
        "list-none": lambda: rows_of.listing(bench.ask("commands", 25), 0),
        "pairs": lambda: rows_of.create_start(bench.ask("pairs", 25)),
        "fill": bench.fill,
        "list": lambda: rows_of.listing(bench.ask("commands", 25), MANY),
        "calls": lambda: rows_of.calls(bench.ask("calls", 7)),
        "core": bench.core,
        "view": lambda: rows_of.view(bench.ask("view", 100)),
        "poll": lambda: rows_of.poll(bench.ask("poll", 65), MANY),
        "resync": lambda: rows_of.resync(bench.ask("resync", 30), MANY),
        "memory": lambda: rows_of.memory(bench.ask("memory"), MANY),
        "ready": lambda: rows_of.ready(bench.ask("ready", 9), MANY),
        "stalls": lambda: rows_of.stalls(bench.ask("stalls", 15), MANY),
    }


def rows(only: Sequence[str] = ()) -> list[Row]:
    """Everything that needs a box, and the core in it; or only these steps."""
    with tempfile.NamedTemporaryFile("wb", suffix=".json") as layout:
        layout.write(msgspec.json.encode(_layout()))
        layout.flush()
        with Server(layout=Path(layout.name)) as server:
            steps = _steps(Bench(server))
            return [row for name in only or steps for row in steps[name]()]


def _layout() -> Layout:
    """Eight cards, each cut into seven slices."""
    return Layout(gpus=[_gpu(n) for n in range(GPUS)])


def _gpu(n: int) -> GpuLayout:
    tail = f"-0000-4000-8000-{n:012x}"
    return GpuLayout(
        uuid=f"GPU-{n:08x}{tail}",
        name="NVIDIA H100 80GB HBM3",
        minor=n,
        pci=f"0000:{0x1B + n:02x}:00.0",
        memory_mib=81559,
        mig={
            "slices": [
                {
                    "profile": "1g.10gb",
                    "gi": 7 + s,
                    "ci": 0,
                    "start": s,
                    "size": 1,
                    "uuid": f"MIG-{s:08x}{tail}",
                    "memory_mib": 9984,
                }
                for s in range(SLICES)
            ]
        },
    )
