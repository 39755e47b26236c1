"""Known-bad edits of the design, each of which the simulation must catch, so that its silence means something.

`python -m tests.sim.mutants [NAME …]` runs all or some of them on a copy of the code and prints how many steps and
seconds each lived. An edit that no longer fits the code is an error, not a survivor.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
#: Steps after which a mutant counts as a survivor.
STEPS = 400_000
SEED = "7"


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One edit, or several that only mean something together: (file, what stands there, what would stand there)."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How long a mutant lived, and what it was caught by; `words` empty: nothing caught it."""

    name: str
    steps: int
    seconds: float
    words: str


_SETTLING, _CORE = "ds01d/core/settling.py", "ds01d/core/core.py"
_RULES = "ds01d/core/rules/"

MUTANTS = (
    Mutant(
        name="freed when the removal is ordered",
        edits=(
            (
                _RULES + "releasing.py",
                "    elif look.status is EngineStatus.RUNNING:\n",
                "    elif c.phase is Phase.REMOVING:\n        _free(tx, c, a, look)\n    elif look.status is EngineStatus.RUNNING:\n",
            ),
            (
                _RULES + "releasing.py",
                "\ndef _again(",
                "\ndef _free(tx: Tx, c: Container, a: Allocation, look: Look) -> None:\n    freed(tx, a)\n\n\ndef _again(",
            ),
        ),
    ),
    Mutant(
        name="a listing is taken as proof",
        edits=(
            (
                _RULES + "reconciling.py",
                "        seen = listed.get(c.engine_id)\n",
                "        seen = listed.get(c.engine_id)\n        a = tx.state.allocation_of(c.id)\n        if a is not None and a.claim.value == 'releasing' and (seen is None or seen.status is not EngineStatus.RUNNING):\n            tx.put(tx.state.allocations, a.id, None)\n            continue\n",
            ),
            (_RULES + "reconciling.py", "c.order is not None or c.engine_id is None or ", "c.engine_id is None or "),
        ),
    ),
    Mutant(
        name="acting before saving",
        edits=(("tests/sim/daemon.py", "if revision <= self.saved or", "if revision >= 0 or"),),
    ),
    Mutant(
        name="an effect is released one revision too early",
        edits=(("tests/sim/daemon.py", "if revision <= self.saved or", "if revision <= self.saved + 1 or"),),
    ),
    Mutant(
        name="no second try after a failed remove",
        edits=(
            (
                _RULES + "ending.py",
                "    tx.change(c, look=True, attempts=attempts, retry_at=tx.now + back_off(attempts - 1))\n    if attempts == 3:  # noqa: PLR2004  # the same patience as for a stop\n",
                "    tx.change(c, frozen=True)\n    if attempts == 3:\n",
            ),
        ),
    ),
    Mutant(
        name="freed by inspect with a ghost in the cgroup",
        edits=(
            (_RULES + "releasing.py", "    elif look.ghost:\n", "    elif False:\n"),
            (
                _RULES + "releasing.py",
                "    if look.cgroup is not CgroupStatus.EMPTY and not nameless:\n",
                "    if False:\n",
            ),
        ),
    ),
    Mutant(
        name="looking before withdrawing",
        edits=(
            (_RULES + "releasing.py", "    if c.permission is not Permission.ABSENT:\n        return\n", ""),
            (
                _SETTLING,
                "    if c.permission is not Permission.ABSENT and (stale or not permitted(c, a)):",
                "    if c.permission is not Permission.ABSENT and (stale or not permitted(c, a)) and not (a is not None and a.claim is Claim.RELEASING):",
            ),
        ),
    ),
    Mutant(
        name="a guard without generation",
        edits=(("tests/sim/engine.py", "if grant.generation != s.spec.generation:", "if False:"),),
    ),
    Mutant(
        name="a guard that does not ask whose permission it is",
        edits=(
            (
                "tests/sim/engine.py",
                '        if grant is None:\n            return "there is no permission"\n',
                '        if grant is None:\n            return ""\n',
            ),
        ),
    ),
    Mutant(
        name="a permission for BOUND only",
        edits=(
            (
                _SETTLING,
                "a.claim in {Claim.HELD, Claim.BOUND} and not a.lost",
                "a.claim in {Claim.BOUND} and not a.lost",
            ),
        ),
    ),
    Mutant(
        name="start-up ignores stray permissions",
        edits=(
            (
                _RULES + "recalling.py",
                "    if seen is None:\n        return c.blocks\n",
                "    if seen is None or seen is not None:\n        return c.blocks\n",
            ),
            (
                _RULES + "recalling.py",
                '    state = tx.state\n    if state.containers.count("key", seen.key):\n        return None\n',
                "    return None\n    state = tx.state\n",
            ),
        ),
    ),
    Mutant(
        name="a session that nobody reads is not cut",
        edits=(("tests/sim/daemon.py", "made.unread = False", "pass"),),
    ),
    Mutant(
        name="a whole GPU is given while a slice of it is",
        edits=(("ds01d/core/placing.py", "for other in state.excluded_by(slot):", "for other in ():"),),
    ),
    Mutant(
        name="RELEASING at start-up is proved without withdrawing",
        edits=(
            (
                _RULES + "recalling.py",
                "    if a is not None and a.claim is Claim.RELEASING:\n        return Permission.UNSURE\n",
                "    if a is not None and a.claim is Claim.RELEASING:\n        return Permission.ABSENT\n",
            ),
        ),
    ),
    Mutant(
        name="an uncertain permit is settled by an inspect",
        edits=((_RULES + "tending.py", "if c.order.name in {OrderName.PERMIT, OrderName.WITHDRAW}:", "if False:"),),
    ),
    Mutant(
        name="a bare generation over a roll-back",
        edits=(
            (_SETTLING, 'generation = f"{tx.state.lineage}.{tx.state.counter}"', 'generation = f".{tx.state.counter}"'),
            (_SETTLING, 'c.generation.startswith(f"{state.lineage}.")', 'c.generation.startswith(".")'),
            (_RULES + "recalling.py", 'c.generation.startswith(f"{state.lineage}.")', 'c.generation.startswith(".")'),
        ),
    ),
    Mutant(
        name="whatever is in the cgroup is killed as a ghost",
        edits=(
            (
                "tests/sim/hands.py",
                "        for proc in procs:\n            if proc.alive:\n                self.machine.kill_ghost(proc)\n",
                "        for proc in list(self.machine.cgroups.get(procs[0].container, {}).values()):\n            self.machine.kill_ghost(proc)\n",
            ),
        ),
    ),
    Mutant(
        name="ghosts are looked for at start-up only",
        edits=(
            (
                _RULES + "reconciling.py",
                "        ghost = not running and cgroup is CgroupStatus.OCCUPIED\n",
                "        ghost = False\n",
            ),
        ),
    ),
    Mutant(
        name="a raw start during the release is overlooked",
        edits=(
            (
                _RULES + "releasing.py",
                "    elif look.status is EngineStatus.RUNNING:\n        _running(tx, c, a, look)\n",
                "    elif look.status is EngineStatus.RUNNING:\n        _not_running(tx, c, a, look)\n",
            ),
            (
                _RULES + "releasing.py",
                "    if look.cgroup is not CgroupStatus.EMPTY and not nameless:\n",
                "    if False:\n",
            ),
        ),
    ),
    Mutant(
        name="the answer to an earlier order is taken for this one's",
        edits=(
            (_CORE, "if c is None or c.order is None or c.order.id != e.order:", "if c is None or c.order is None:"),
        ),
    ),
    Mutant(
        name="silence is taken for an end",
        edits=(
            (
                _RULES + "releasing.py",
                "stopped = {EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED}\n    if c.engine_id",
                "stopped = {EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED, EngineStatus.SILENT}\n    if c.engine_id",
            ),
            (
                _RULES + "releasing.py",
                "    if look.cgroup is not CgroupStatus.EMPTY and not nameless:\n",
                "    if look.cgroup is CgroupStatus.OCCUPIED and not look.ghost:\n",
            ),
        ),
    ),
    Mutant(
        name="the spec goes before the grant",
        edits=(
            (
                "tests/sim/hands.py",
                "        files = (self.machine.grants, self.machine.specs)\n        if t.stage < len(files):\n            files[t.stage].pop(o.key, None)\n",
                "        files = (self.machine.specs,)\n        if t.stage < len(files):\n            files[t.stage].pop(o.key, None)\n",
            ),
        ),
    ),
)


def run(mutant: Mutant, *, steps: int = STEPS, seed: str = SEED) -> Verdict:
    """Let a mutant live in a copy of the code until the simulation catches it."""
    with tempfile.TemporaryDirectory(prefix="ds01d-mutant-") as folder:
        copy = Path(folder)
        for package in ("ds01d", "tests/sim"):
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "tests/__init__.py").touch()
        for file, old, new in mutant.edits:
            text = (copy / file).read_text()
            if text.count(old) != 1:
                raise ValueError(f"mutant {mutant.name!r}: {file} has this {text.count(old)} times: {old!r}")
            (copy / file).write_text(text.replace(old, new))
        began = time.monotonic()
        told = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", seed, "--steps", str(steps), "--no-shrink", "--brief"],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
    found = re.search(r"after (\d+) steps: (.*)", told.stdout)
    if told.returncode == 0:
        return Verdict(name=mutant.name, steps=steps, seconds=seconds, words="")
    if found is None:
        raise ValueError(f"mutant {mutant.name!r} does not run: {told.stdout[-500:]}{told.stderr[-2000:]}")
    return Verdict(name=mutant.name, steps=int(found[1]), seconds=seconds, words=found[2])


def main() -> int:
    wanted = sys.argv[1:]
    survivors = 0
    for mutant in MUTANTS:
        if wanted and mutant.name not in wanted:
            continue
        try:
            verdict = run(mutant)
        except ValueError as error:
            verdict = Verdict(name=mutant.name, steps=0, seconds=0.0, words="")
            print(error)
        survivors += not verdict.words
        fate = verdict.words[:90] or "SURVIVED"
        print(f"{verdict.steps:8} steps {verdict.seconds:6.1f} s  {mutant.name}: {fate}", flush=True)
    print(f"{survivors} survived")
    return survivors > 0


if __name__ == "__main__":
    sys.exit(main())
