"""`python3 -m tests.bench.inside WHAT [NUMBER]`: measures one thing, and prints the figures as JSON. Must be root."""

import json
import sys
from collections.abc import Callable

from tests.bench.inside.calls import calls
from tests.bench.inside.commands import commands
from tests.bench.inside.stalls import stalls
from tests.bench.inside.standing import memory, poll, ready
from tests.bench.inside.sync import resync
from tests.bench.inside.view import view
from tests.bench.inside.work import fill, pairs

WHAT: dict[str, Callable[[int], object]] = {
    f.__name__: f for f in (calls, commands, fill, memory, pairs, poll, ready, resync, stalls, view)
}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](int(sys.argv[2]))))
