"""What tests of the installed product share."""

import os
from collections.abc import Iterator

import pytest

from tests.system.house import House

#: The siege: attacks that take minutes each. `make siege` collects them, `make test` does not.
SIEGE = ["test_disks.py", "test_hostile.py", "test_nvml_trouble.py", "test_second_engine.py", "test_storm.py"]
collect_ignore = [] if os.environ.get("SIEGE") else SIEGE


@pytest.fixture
def clean(home: House) -> Iterator[House]:
    """The module's server with nothing in it; afterwards everything has to agree."""
    home.clear()
    yield home
    home.agrees()
