"""Root in a storm, inside the box: the engine's own commands at random moments, on whatever container of anybody's.

What it is about to touch it writes down first, for the people: from then on they know nothing of that container. At the
end every name is as it was. Standard library only.
"""

import json
import random
import subprocess
import time
from collections import Counter

from tests.soak.person import TOUCHED, Flags

DEEDS = ("start", "start", "stop", "kill", "rm", "rename", "rename")
#: A name of root's own, which no person's container has.
BORROWED = "roots-"
#: A command of the engine's that takes longer is given up; a start behind a hook may hang with its engine. Seconds.
COMMAND_S = 60.0


class Root:
    """Somebody with rights and no manners; between two commands it waits `every_s` on average."""

    def __init__(self, seed: str, flags: Flags, *, every_s: float) -> None:
        self._random = random.Random(f"{seed}/root")
        self._flags, self._every_s = flags, every_s
        #: The engine's id of a renamed container, and its own name.
        self._renamed: dict[str, str] = {}
        self.done: Counter[str] = Counter()

    def live(self) -> None:
        """Do this and that until the storm is over, and put every name back."""
        while not self._flags.over.value:
            time.sleep(self._random.uniform(0, 2 * self._every_s))
            there = _containers()
            if there:
                self._touch(*self._random.choice(there))
        for engine_id in tuple(self._renamed):
            self._give_back(engine_id)

    def report(self) -> dict[str, object]:
        """How often what was done, and to what."""
        touched = sorted(set(TOUCHED.read_text().splitlines())) if TOUCHED.exists() else []
        return {"done": self.done, "touched": touched}

    def _touch(self, engine_id: str, name: str, state: str) -> None:
        own = self._renamed.get(engine_id, name)
        if own.startswith(BORROWED):
            return
        with TOUCHED.open("a", encoding="utf-8") as told:
            told.write(f"{own}\n")
        deed = self._random.choice(DEEDS)
        match deed:
            case "start" | "kill":
                done = _docker(deed, engine_id)
            case "stop":
                done = _docker("stop", "--time", "1", engine_id)
            case "rm":
                done = _docker("rm", *(["--force"] if self._random.random() < 0.7 else []), engine_id)
            case _:
                # One in the making is known by its name alone: without that a daemon that was killed makes another one,
                # tells the operators of the first, and removes that ten minutes later, when all this is over.
                done = state != "created" and self._rename(engine_id, own)
        self.done[deed if done else f"{deed} (refused)"] += 1

    def _rename(self, engine_id: str, own: str) -> bool:
        if engine_id in self._renamed:
            return self._give_back(engine_id)
        # Before the command: it may be done though its answer is lost.
        self._renamed[engine_id] = own
        return _docker("rename", engine_id, f"{BORROWED}{engine_id[:12]}")

    def _give_back(self, engine_id: str) -> bool:
        """Its own name again, unless it is gone, or never had another."""
        end = time.monotonic() + COMMAND_S
        while time.monotonic() < end:
            now = _docker_says("inspect", "--format", "{{.Name}}", engine_id)
            own = self._renamed[engine_id]
            if now.returncode == 0 and now.stdout.strip() == f"/{own}":
                break
            if "o such" in now.stderr or _docker("rename", engine_id, own):
                break
            time.sleep(0.5)
        else:
            return False
        del self._renamed[engine_id]
        return True


def _containers() -> list[tuple[str, str, str]]:
    """Every container of the daemon's as (id, name, state)."""
    said = _docker_says("ps", "--all", "--no-trunc", "--filter", "label=ds01.id", "--format", "json")
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    return sorted((str(row["ID"]), str(row["Names"]), str(row["State"])) for row in rows)


def _docker(*argv: str) -> bool:
    return _docker_says(*argv).returncode == 0


def _docker_says(*argv: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["docker", *argv], capture_output=True, text=True, check=False, timeout=COMMAND_S)
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(late.cmd, 1, "", "no answer")
