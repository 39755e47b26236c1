"""A shell that the engine will not make: the caller is told why. What becomes of others, the system tests tell."""

from pathlib import Path

import pytest

from ds01d.adapters.docker import DockerEngine
from ds01d.adapters.procfs import Procfs
from ds01d.adapters.sessions import Sessions
from ds01d.adapters.systemd import Notifier
from ds01d.model.errors import EngineTrouble, NotFound, Paused, Refused
from ds01d.model.ids import EngineId, Uid
from tests.adapters.fake_engine import FULL_ID, FakeEngine


@pytest.mark.parametrize(
    ("status", "message", "no"),
    [
        (409, f"Container {FULL_ID} is paused, unpause the container before exec", Paused),
        (409, f"Container {FULL_ID} is not running", EngineTrouble),
        (404, f"No such container: {FULL_ID}", NotFound),
    ],
)
async def test_a_shell_that_the_engine_refuses_is_refused_for_that_reason(
    tmp_path: Path, status: int, message: str, no: type[Refused]
) -> None:
    async with FakeEngine(tmp_path / "engine.sock").serving() as fake:
        fake.replies[f"POST containers/{FULL_ID}/exec"] = fake.refuses(message, status)
        engine = DockerEngine(fake.socket)
        sessions = Sessions(engine, Notifier({}), Procfs())
        try:
            with pytest.raises(Refused) as refused:
                await sessions.start(
                    EngineId(FULL_ID),
                    ("ls",),
                    user="2001:2001",
                    env={},
                    tty=False,
                    workdir=None,
                    size=None,
                    uid=Uid(2001),
                    lives_in=False,
                )
            assert type(refused.value) is no
            assert (FULL_ID in refused.value.message) is (no is not Paused)
        finally:
            await sessions.close()
            await engine.close()
