"""An engine that came up without inotify instances, of which a machine has few: some of them panic in every start."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.soak.run import place
from tests.system.house import POLICY, House

pytestmark = pytest.mark.system

#: The limit counts every process of root, outside the box too: so it is taken from the engine alone.
_NONE_LEFT = """\
[Service]
SystemCallFilter=~inotify_init inotify_init1
SystemCallErrorNumber=EMFILE
"""
_UNIT = "/etc/systemd/system/docker.service.d/inotify.conf"


@pytest.fixture(scope="module", params=[("trixie", False), ("engine28", True)], ids=["26.1", "28.5-live-restore"])
def home(request: pytest.FixtureRequest) -> Iterator[House]:
    image, live_restore = request.param
    with place(image=image, live_restore=live_restore, policy=POLICY) as house:
        yield house


@contextmanager
def no_inotify(house: House) -> Iterator[None]:
    """The engine comes up and finds every instance taken; afterwards an operator has raised the limit."""
    house.server.write(_UNIT, _NONE_LEFT)
    house.server.exec("systemctl", "daemon-reload")
    assert watches(house) > 0
    house.server.kill_dockerd()
    assert watches(house) == 0
    try:
        yield
    finally:
        house.server.exec("rm", _UNIT)
        house.server.exec("systemctl", "daemon-reload")
        house.server.kill_dockerd()


def watches(house: House) -> int:
    """How many inotify instances the engine has."""
    pid = house.server.main_pid("docker.service")
    return house.server.exec("ls", "-l", f"/proc/{pid}/fd").stdout.count("inotify")


def test_a_start_without_inotify_works_or_names_the_cure_and_nothing_is_lost(clean: House) -> None:
    clean.create("alice", "thesis")
    clean.create("bob", "his")
    daemon = clean.server.main_pid("ds01d.service")
    with no_inotify(clean):
        done = clean.run("alice", "container-start", "thesis", check=False, timeout=90)
        if done.returncode:
            assert "fs.inotify.max_user_instances" in done.stderr, done.stderr
            assert "sysctl" in done.stderr
            assert "hung up" in clean.run("alice", "container-why", "thesis").stdout
        clean.wait_for("alice", "thesis", "created" if done.returncode else "running")
        assert clean.of("alice", "thesis")["slots"] == ["4:0"]
        clean.agrees()

    for user, name in (("alice", "thesis"), ("bob", "his")):
        clean.run(user, "container-start", name)
    assert clean.of("bob", "his")["slots"] == ["4:1"]
    assert clean.server.main_pid("ds01d.service") == daemon, "it recovered by itself"
