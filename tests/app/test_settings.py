"""What is wrong with the daemon's own settings is shown to operators, and to them only."""

from pathlib import Path

import pytest

from ds01d.adapters.accounts import Accounts
from ds01d.adapters.config_files import ConfigFiles
from ds01d.adapters.policies import Policies
from ds01d.adapters.store import Store
from ds01d.app.daemon import Daemon
from ds01d.app.joints import Places
from ds01d.core.views.machine import notices
from tests.core.world import actor


@pytest.mark.root
async def test_a_mistake_in_the_settings_stands_in_the_status_of_operators(tmp_path: Path) -> None:
    places = Places(etc=tmp_path / "etc", state=tmp_path / "state", log=tmp_path / "log", run=tmp_path / "run")
    for place in (places.etc, places.state, places.log, places.run):
        place.mkdir()
    files, accounts, store = ConfigFiles(etc=places.etc, last_good=tmp_path / "kept"), Accounts(), Store(places.state)
    (places.etc / "ds01d.yaml").write_text("log: {level: debug}\n")
    files.keep_settings(files.settings())
    (places.etc / "ds01d.yaml").write_text("log: {level: loud}\n")
    daemon = Daemon(places, files.settings_at_start(), Policies(files, accounts, places.etc), accounts, store)

    shown = {
        user: [n.text for n in notices(daemon._state, actor(user), unsaved_since=None)] for user in ("olga", "alice")
    }

    await daemon._close()
    told = [text for text in shown["olga"] if f"{places.etc}/ds01d.yaml:1: log.level" in text]
    assert len(told) == 1
    assert "`systemctl restart ds01d`" in told[0]
    assert not any("ds01d.yaml" in text for text in shown["alice"])
