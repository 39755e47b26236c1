"""`python -m tests.bench [core] [box]`: measures the parts that are named, or all, and prints one table."""

import argparse

from tests.bench import core
from tests.bench.table import conditions, print_table

PARTS = {"core": core.rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench", description="The table of speeds.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    asked = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in asked if part not in PARTS]
    if unknown:
        parser.error(f"cannot measure {', '.join(unknown)}: the parts are {', '.join(PARTS)}")
    before = conditions()
    rows = [row for part in asked for row in PARTS[part]()]
    print_table(rows)
    print(f"\nthe machine before: {before}\nand after:          {conditions()}")


if __name__ == "__main__":
    main()
