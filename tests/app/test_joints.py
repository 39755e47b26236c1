"""How the saved state is taken up again."""

import pytest

from ds01d.adapters.store import Loaded
from ds01d.app.joints import recalled_state


@pytest.mark.parametrize(
    "body",
    [
        b'{"counter":1,"lineages":[],"tables":{"containers":{"L-1":{"id":"L-1"}}}}',
        b'{"counter":"many","lineages":[],"tables":{}}',
    ],
)
def test_a_whole_file_that_says_something_else_than_a_state_leads_to_recovery_and_not_to_a_crash(body: bytes) -> None:
    state, trouble = recalled_state(Loaded(lineage="L", boot_id="b", revision=7, state=body), "b")

    assert trouble is not None
    assert "cannot be read" in trouble
    assert not state.containers.rows
