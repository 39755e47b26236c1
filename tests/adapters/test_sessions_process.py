"""A container with shells that ends by itself is told of at once, though the engine may keep it to itself."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.procfs import Procfs
from ds01d.adapters.sessions_process import Inits
from ds01d.model.ids import EngineId
from tests.adapters.fake_engine import FULL_ID, FakeEngine, inspected

ID = EngineId(FULL_ID)


class Bench:
    """A process that the engine calls the first one of a container, and who is told of its end."""

    def __init__(self, fake: FakeEngine, root: Path) -> None:
        self.fake = fake
        self.engine = DockerEngine(fake.socket)
        self.init = subprocess.Popen(["sleep", "60"])  # it begins at once
        (root / "proc" / str(self.init.pid)).mkdir(parents=True)
        self.cgroup = root / "proc" / str(self.init.pid) / "cgroup"
        self.cgroup.write_text(f"0::/system.slice/docker-{FULL_ID}.scope\n")
        self.told: list[EngineId] = []
        self.heard = asyncio.Event()
        self.inits = Inits(self.engine, Procfs(root), self.tell, last_words_s=0.05)
        state = {"Status": "running", "Running": True, "StartedAt": "2026-11-20T14:20:00Z", "Pid": self.init.pid}
        fake.replies[f"GET containers/{FULL_ID}/json"] = fake.says(inspected(**state))

    def tell(self, container: EngineId) -> None:
        self.told.append(container)
        self.heard.set()

    def end(self) -> None:
        self.init.kill()
        self.init.wait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FakeEngine(tmp_path / "engine.sock").serving() as fake:
        bench = Bench(fake, tmp_path)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all
        yield bench
        bench.inits.close()
        await bench.engine.close()
        bench.end()
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208  # the engine's side may still close


async def test_its_end_is_told_once(bench: Bench) -> None:
    for _ in range(2):
        await bench.inits.watch(ID, lambda: True)
    bench.end()
    await asyncio.wait_for(bench.heard.wait(), 5)
    assert bench.told == [ID]


async def test_many_shells_of_one_container_ask_for_it_once_and_again_where_that_failed(bench: Bench) -> None:
    question = f"GET containers/{FULL_ID}/json"
    answer = bench.fake.replies[question]
    bench.fake.replies[question] = bench.fake.refuses("internal", 500)
    await asyncio.gather(*(bench.inits.watch(ID, lambda: True) for _ in range(20)))
    bench.fake.replies[question] = answer
    await asyncio.gather(*(bench.inits.watch(ID, lambda: True) for _ in range(20)))
    assert bench.fake.asked.count(question) == 2
    bench.end()
    await asyncio.wait_for(bench.heard.wait(), 5)
    assert bench.told == [ID]


async def test_who_has_no_shell_there_any_more_is_told_nothing(bench: Bench) -> None:
    await bench.inits.watch(ID, lambda: True)
    bench.inits.forget(ID)
    bench.end()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.heard.wait(), 0.2)


async def test_a_shell_that_ended_while_the_engine_was_asked_is_watched_for_no_more(bench: Bench) -> None:
    await bench.inits.watch(ID, lambda: False)
    bench.end()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.heard.wait(), 0.2)


async def test_another_process_that_has_the_pid_by_now_is_not_taken_for_it(bench: Bench) -> None:
    bench.cgroup.write_text("0::/user.slice\n")
    await bench.inits.watch(ID, lambda: True)
    bench.end()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.heard.wait(), 0.2)
