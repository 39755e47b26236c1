"""`python -m tests.hostile`: storms the doors for so many seconds; prints the seed, and says what went wrong."""

import argparse
import asyncio
import sys
import time

from tests.hostile.fuzz import Fault, Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", default=str(int(time.time())))
    args = parser.parse_args()
    print(f"seed {args.seed}")
    try:
        print(asyncio.run(Storm(args.seed, args.seconds).run()))
    except Fault as fault:
        print(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
