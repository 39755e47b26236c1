"""What tests of the installed product share."""

from collections.abc import Iterator

import pytest

from tests.system.house import House


@pytest.fixture
def clean(home: House) -> Iterator[House]:
    """The module's server with nothing in it; afterwards everything has to agree."""
    home.clear()
    yield home
    home.agrees()
