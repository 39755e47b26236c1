"""`python -m tests.sim`: random histories until so many steps are made; a failure prints what replays it."""

import argparse
import subprocess
import sys
import time

from tests.sim.swarm import Failure, history, shrink
from tests.sim.telling import tell
from tests.sim.themes import THEMES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", default=str(int(time.time())), help="the first seed; printed with every run")
    parser.add_argument("--steps", type=int, default=100_000, help="how many steps, over as many histories as it takes")
    parser.add_argument("--history", type=int, help="only this history of the seed")
    parser.add_argument("--theme", choices=[*THEMES], help="only histories about this")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing history as it was")
    parser.add_argument("--brief", action="store_true", help="say in one line what went wrong, and no more")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"seed {args.seed} at commit {commit.stdout.strip() or 'unknown'}")
    began, steps, n = time.monotonic(), 0, args.history or 0
    while steps < args.steps:
        made, failure = history(f"{args.seed}/{n}", theme=args.theme)
        steps += made
        if failure is not None:
            print(f"history {n} went wrong after {steps} steps: {failure.words}")
            if not args.brief:
                _report(failure, whole=args.no_shrink)
                about = f" --theme '{args.theme}'" if args.theme else ""
                print(f"\nagain: python -m tests.sim --seed {args.seed} --history {n}{about}")
            return 1
        if args.history is not None:
            break
        n += 1
    spent = time.monotonic() - began
    print(f"{steps} steps in {n} histories without a fault, {steps / spent:.0f} steps/s")
    return 0


def _report(failure: Failure, *, whole: bool) -> None:
    print(failure.where)
    short = failure if whole else shrink(failure)
    print(f"in short, {len(short.history)} moves: {short.words}\n")
    tell(short)


if __name__ == "__main__":
    sys.exit(main())
