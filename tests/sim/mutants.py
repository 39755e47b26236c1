"""Known-bad edits of the design, each of which a test must catch, so that its silence means something.

`python -m tests.sim.mutants [NAME …]` lets all or some of them live, each in a copy of the code, and prints how many
steps and seconds of processor time they lived: the medians over several seeds. An edit that no longer fits the code is
an error, not a survivor.
"""

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import msgspec

ROOT = Path(__file__).resolve().parents[2]
#: Random steps within which the simulation must have caught a mutant: one number for all.
STEPS = 200_000
#: Each is looked for from so many seeds, where the table is wanted.
SEEDS = 3


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One edit, or several that only mean something together: (file, the lines there, the lines in their place)."""

    name: str
    #: What the histories are about in which it is looked for; empty: as it comes.
    theme: str
    #: The test file that catches it, where that is not the random histories.
    by: str
    edits: tuple[tuple[str, str, str], ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How long a mutant lived, and what it was caught by; `words` empty: nothing caught it."""

    #: Of processor time, so that what else the machine does does not count.
    seconds: float
    words: str
    #: None: it was no random history that caught it.
    steps: int | None = None


class Misfit(Exception):
    """An edit that does not fit the code, or makes no program of it: nothing that a net has caught."""


def _read(text: str) -> tuple[Mutant, ...]:
    """The edits as they are written down."""
    found = []
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, _, rest = part.partition("\n")
        head, _, by = head.partition(" | ")
        name, _, theme = head.partition(" @ ")
        edits = "\n".join(line for line in rest.splitlines() if not line.startswith("#"))
        found.append(Mutant(name=name.strip(), theme=theme.strip(), by=by.strip(), edits=tuple(_edits(edits))))
    return tuple(found)


def _edits(text: str) -> Iterator[tuple[str, str, str]]:
    for place in re.split(r"\n{2,}", text.strip()):
        file, *lines = place.splitlines()
        old = "\n".join(line[1:] for line in lines if line.startswith("-"))
        new = "\n".join(line[1:] for line in lines if line.startswith("+"))
        yield file, old, new


MUTANTS = _read(Path(__file__).with_suffix(".txt").read_text())
#: What Python says of an edit that is no program.
_NO_PROGRAM = ("NameError", "SyntaxError", "ImportError", "TypeError", "AttributeError", "UnboundLocalError")
#: What a mutant's copy is made of.
_PARTS = ("ds01d", "tests", "clients", "etc", "pyproject.toml")


def run(mutant: Mutant, *, seed: str = "7", steps: int = STEPS) -> Verdict:
    """Let a mutant live in a copy of the code until what is named for it catches it."""
    with tempfile.TemporaryDirectory(prefix="ds01d-mutant-") as folder:
        copy = Path(folder)
        for part in _PARTS if mutant.by else ("ds01d", "tests/sim", "tests/__init__.py"):
            _take(part, copy)
        for file, old, new in mutant.edits:
            text = (copy / file).read_text()
            if text.count(old) != 1:
                raise Misfit(f"mutant {mutant.name!r}: {file} has this {text.count(old)} times: {old!r}")
            (copy / file).write_text(text.replace(old, new))
        return _told(mutant, copy) if mutant.by else _played(mutant, copy, seed, steps)


def _take(part: str, copy: Path) -> None:
    if (ROOT / part).is_dir():
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / part, copy / part)


def _played(mutant: Mutant, copy: Path, seed: str, steps: int) -> Verdict:
    """What random histories say to it."""
    about = ["--theme", mutant.theme] if mutant.theme else []
    command = [sys.executable, "-m", "tests.sim", "--seed", seed, "--steps", str(steps), "--brief", *about]
    told, seconds = _run(command, copy)
    if told.returncode == 0:
        return Verdict(steps=steps, seconds=seconds, words="")
    found = re.search(r"after (\d+) steps: (.*)", told.stdout)
    if found is None or found[2].startswith(_NO_PROGRAM):
        raise Misfit(f"mutant {mutant.name!r} does not run: {told.stdout[-500:]}{told.stderr[-2000:]}")
    return Verdict(steps=int(found[1]), seconds=seconds, words=found[2])


def _told(mutant: Mutant, copy: Path) -> Verdict:
    """What a test with a plot says to it."""
    options = ("-q", "-x", "--tb=line", "-p", "no:cacheprovider")
    told, seconds = _run([sys.executable, "-m", "pytest", *options, mutant.by], copy)
    if told.returncode == 0:
        return Verdict(seconds=seconds, words="")
    failed = re.search(r"^FAILED \S+?::(\S+)", told.stdout, flags=re.MULTILINE)
    # A test that trips over what is not there has caught it; the product tripping has shown that this is no program.
    tripped = re.search(rf"/ds01d/\S+:\d+: ({'|'.join(_NO_PROGRAM)})", told.stdout)
    if failed is None or tripped is not None:
        raise Misfit(f"mutant {mutant.name!r} does not run: {told.stdout[-2000:]}{told.stderr[-500:]}")
    return Verdict(seconds=seconds, words=failed[1])


def _run(command: Sequence[str], where: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="from how many seeds each is looked for")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps after which one counts as a survivor")
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if not args.names or m.name in args.names]
    lived, survivors, spent = list[float](), list[str](), 0.0
    print("   steps  seconds  mutant: what caught it")
    for mutant in chosen:
        seeds = range(1 if mutant.by else args.seeds)
        try:
            verdicts = [run(mutant, seed=f"mutants/{n}", steps=args.steps) for n in seeds]
        except Misfit as error:
            print(error)
            survivors.append(mutant.name)
            continue
        spent += sum(v.seconds for v in verdicts)
        seconds = median(v.seconds for v in verdicts)
        lived.append(seconds)
        steps = [v.steps for v in verdicts if v.steps is not None]
        escaped = [v for v in verdicts if not v.words]
        if escaped:
            survivors.append(mutant.name)
        fate = f"SURVIVED from {len(escaped)} of {len(verdicts)} seeds" if escaped else verdicts[0].words[:90]
        print(f"{f'{median(steps):8.0f}' if steps else '       -'} {seconds:8.1f}  {mutant.name}: {fate}", flush=True)
    print(
        f"{len(chosen)} mutants, {len(survivors)} survived; median {median(lived or [0.0]):.1f} s, {spent:.0f} s in all"
    )
    for name in survivors:
        print(f"  SURVIVED: {name}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
