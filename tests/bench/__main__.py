"""`python -m tests.bench [core|box]`: measures, and prints one table."""

import argparse
from importlib import import_module

import msgspec

from tests.bench.table import Row, Witness, print_table

#: `box` measures the core too, inside, by the Python that the daemon runs under.
PARTS = ("core", "box")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="tests.bench", description="The table of speeds.")
    parser.add_argument("part", nargs="?", choices=PARTS, default="box")
    parser.add_argument("--json", action="store_true", help="the rows as JSON, for the bench itself")
    asked = parser.parse_args()
    witness = Witness()
    rows: list[Row] = import_module(f"tests.bench.{asked.part}").rows()
    if asked.json:
        print(msgspec.json.encode(rows).decode())
        return
    print_table(rows)
    print(f"\n{witness.words()}")


if __name__ == "__main__":
    main()
