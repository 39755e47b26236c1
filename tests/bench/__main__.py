"""`python -m tests.bench [core|box]`: measures, prints the table, and puts it into a file where one is named."""

import argparse
from importlib import import_module
from pathlib import Path

import msgspec

from tests.bench.table import Row, markdown, replace_in
from tests.bench.witness import Witness

#: `box` measures the core too, inside, by the Python that the daemon runs under.
PARTS = ("core", "box")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="tests.bench", description="The table of speeds.")
    parser.add_argument("part", nargs="?", choices=PARTS, default="box")
    parser.add_argument("--only", metavar="WORD,WORD", help="only these measures, in their order; see box.py")
    parser.add_argument("--report", metavar="FILE", type=Path, help="put the table into this file in place of the last")
    parser.add_argument("--json", action="store_true", help="the rows as JSON, for the bench itself")
    asked = parser.parse_args()
    if asked.json:
        rows: list[Row] = import_module(f"tests.bench.{asked.part}").rows()
        print(msgspec.json.encode(rows).decode())
        return
    witness = Witness()
    measured = import_module(f"tests.bench.{asked.part}")
    rows = measured.rows(asked.only.split(",")) if asked.only else measured.rows()
    table = markdown(rows, witness.words())
    print(table, end="")
    if asked.report is not None:
        replace_in(asked.report, table)


if __name__ == "__main__":
    main()
