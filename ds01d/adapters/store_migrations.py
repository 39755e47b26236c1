"""The numbered steps from one schema of the state to the next, each dict → dict. How the file lies on disk: store.py.

To change the schema: write the step from the old number, raise SCHEMA, and leave a file of the old schema in
tests/golden/states for ever.
"""

from collections.abc import Callable, Mapping

#: What this version writes.
SCHEMA = 1

Document = dict[str, object]
Migration = Callable[[Document], Document]

#: From which schema → how to get to the next one.
MIGRATIONS: Mapping[int, Migration] = {}


class NoWay(Exception):
    """No step leads on from this schema."""


def migrate(document: Document, schema: int, target: int, steps: Mapping[int, Migration]) -> Document:
    """Take a state from its schema to the target's, one step after the other."""
    for number in range(schema, target):
        step = steps.get(number)
        if step is None:
            raise NoWay(f"no migration leads from schema {number} to {number + 1}")
        document = step(document)
    return document
