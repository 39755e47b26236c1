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
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
#: Steps after which a mutant counts as a survivor.
STEPS = 400_000
SEED = "7"


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One edit, or several that only mean something together: (file, the lines there, the lines in their place)."""

    name: str
    #: What the histories are about in which it is looked for.
    theme: str
    edits: tuple[tuple[str, str, str], ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How long a mutant lived, and what it was caught by; `words` empty: nothing caught it."""

    name: str
    steps: int
    seconds: float
    words: str


def _read(text: str) -> tuple[Mutant, ...]:
    """The edits as they are written down."""
    found = []
    for part in text.split("\n== ")[1:]:
        head, _, rest = part.partition("\n")
        name, _, theme = head.partition(" @ ")
        found.append(Mutant(name=name, theme=theme, edits=tuple(_edits(rest))))
    return tuple(found)


def _edits(text: str) -> Iterator[tuple[str, str, str]]:
    for place in text.strip().split("\n\n"):
        file, *lines = place.splitlines()
        old = "\n".join(line[1:] for line in lines if line.startswith("-"))
        new = "\n".join(line[1:] for line in lines if line.startswith("+"))
        yield file, old, new


MUTANTS = _read(Path(__file__).with_suffix(".txt").read_text())
#: What Python says of an edit that is no program: nothing that a net has caught.
_NO_PROGRAM = ("NameError", "SyntaxError", "ImportError", "TypeError", "AttributeError", "UnboundLocalError")


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
        about = ["--theme", mutant.theme] if mutant.theme else []
        began = time.monotonic()
        told = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", seed, "--steps", str(steps), "--brief", *about],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        letters = _letters(copy) if told.returncode == 0 else ""
        seconds = time.monotonic() - began
    found = re.search(r"after (\d+) steps: (.*)", told.stdout)
    if told.returncode == 0:
        return Verdict(name=mutant.name, steps=steps, seconds=seconds, words=letters)
    if found is None or found[2].startswith(_NO_PROGRAM):
        raise ValueError(f"mutant {mutant.name!r} does not run: {told.stdout[-500:]}{told.stderr[-2000:]}")
    return Verdict(name=mutant.name, steps=int(found[1]), seconds=seconds, words=found[2])


def _letters(copy: Path) -> str:
    """What the stories with a plot say to a mutant that random ones did not catch; empty: nothing."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/sim/test_letters.py"]
    told = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    failed = re.search(r"FAILED \S+::(\S+)", told.stdout)
    return f"a story with a plot: {failed[1]}" if failed is not None else ""


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
