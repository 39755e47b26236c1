"""The guard and the init in real engines: what starts, what is refused in which words, and how fast a stop is."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ds01d.adapters.cdi_spec import Node, container_spec, encode, grant_text
from ds01d.model.ids import EngineId, GpuUuid, Key, SlotId
from ds01d.model.permission import MountProof, Permission, SlotDevice
from tests.native.programs import build
from tests.testbed.server import Server, until

pytestmark = pytest.mark.system

ALICE = 1001
GUARD = "/usr/lib/ds01/cdi-guard"
INIT = "/usr/lib/ds01/ds01-init"
WORKSPACE = "/home/alice/workspace"
#: The engine's cache of specs runs behind our writes; the daemon tries again on exactly these.
BEHIND = ("unresolvable CDI devices", "stale generation")


@dataclass
class Engine:
    """An engine with the two programs in place, and nobody but the test to write permissions."""

    server: Server
    names: int = 0

    def create(self, *options: str, key: str | None = None, image: str = "bb") -> tuple[str, EngineId]:
        """Create a container of alice's that asks for its own device, as the daemon does; return key and full id."""
        self.names += 1
        name = f"c{self.names}"
        asked = key or f"k{self.names}"
        done = self.server.docker(
            *("create", "--name", name, "--user", f"{ALICE}:{ALICE}", "--device", f"ds01/gpu={asked}"),
            *("--mount", f"type=bind,source={INIT},target=/.ds01/init,readonly", "--entrypoint", "/.ds01/init"),
            *("--stop-signal", "SIGTERM", *options, image),
        )
        return asked, EngineId(done.stdout.strip())

    def permit(self, key: str, container: EngineId, counter: int = 1, *, card: int = 0, mounts: str = "") -> None:
        """Write grant and spec for one card; `mounts` is a directory of the box that lies at /workspace."""
        self.write_grant(key, container, counter, card=card, mounts=mounts)
        permission = self._permission(key, container, counter, card, mounts)
        nodes = tuple(Node(path=f"/dev/{n}", host_path=f"/dev/fake/{n}") for n in (f"nvidia{card}", "nvidiactl"))
        self._put(f"/run/cdi/ds01-{key}.json", encode(container_spec(permission, nodes, GUARD)))

    def write_grant(self, key: str, container: EngineId, counter: int = 1, *, card: int = 0, mounts: str = "") -> None:
        self._put(f"/run/ds01/grant/{key}", grant_text(self._permission(key, container, counter, card, mounts)))

    def _permission(self, key: str, container: EngineId, counter: int, card: int, mounts: str) -> Permission:
        uuid = GpuUuid(f"GPU-{card}")
        proofs: tuple[MountProof, ...] = ()
        if mounts:
            dev, inode = self.server.exec("stat", "--format", "%d %i", mounts).stdout.split()
            proofs = (MountProof(dev=int(dev), inode=int(inode), target="/workspace"),)
        return Permission(
            key=Key(key),
            container_id=container,
            generation=f"8f3a.{counter}",
            uid=ALICE,
            gid=ALICE,
            slots=(SlotDevice(name=SlotId(uuid), uuid=uuid, minor=card, gpu_index=card),),
            mounts=proofs,
        )

    def _put(self, path: str, text: bytes) -> None:
        self.server.write(f"{path}.new", text.decode(), 0o600)
        self.server.exec("mv", f"{path}.new", path)

    def start(self, container: str) -> CompletedProcess[str]:
        """Start it, again while the engine still has an older spec at hand, at most for 2 s."""
        end = time.monotonic() + 2
        while True:
            done = self.server.docker("start", container, check=False)
            if time.monotonic() > end or not any(words in done.stderr for words in BEHIND):
                return done

    def started(self, container: str) -> None:
        done = self.start(container)
        assert done.returncode == 0, done.stderr

    def refused(self, container: str) -> str:
        """Start it; return the guard's own line out of the engine's error."""
        done = self.start(container)
        assert done.returncode != 0, "it was let through"
        front = "ds01: cannot start: "
        assert front in done.stderr, done.stderr
        return done.stderr.partition(front)[2]

    def inside(self, container: str, *command: str) -> str:
        return self.server.docker("exec", container, *command).stdout

    def stop(self, container: str) -> float:
        """`docker stop` with a grace of 10 s; return the seconds it took."""
        begin = time.monotonic()
        self.server.docker("stop", "--time", "10", container)
        return time.monotonic() - begin

    def exit_code(self, container: str) -> int:
        return int(self.server.docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout)


@pytest.fixture(scope="module", params=[("trixie", False), ("engine28", True)], ids=["26.1", "28.5-live-restore"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    built = tmp_path_factory.mktemp("native")
    image, live_restore = request.param
    with Server(image=image, live_restore=live_restore, install=False) as server:
        server.exec("mkdir", "-p", "-m", "700", "/run/ds01/grant")
        server.exec("mkdir", "-p", "/run/cdi", "/usr/lib/ds01")
        for program in (GUARD, INIT):
            shutil.copy(build(built, Path(program).name), server.root / program.lstrip("/"))
        yield Engine(server)


# ── the guard ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_permitted_container_starts_with_its_card_for_its_user_alone(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container)

    engine.started(container)

    assert engine.inside(container, "cat", "/proc/1/comm") == "init\n"
    line = engine.inside(container, "ls", "-ln", "/dev/nvidia0").split()
    assert (line[0], line[2], line[3]) == ("crw-------", str(ALICE), str(ALICE))
    assert "DS01_SLOTS" not in engine.inside(container, "cat", "/proc/1/environ")


def test_the_same_container_starts_again_with_another_card(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container, 1, card=0)
    engine.started(container)
    engine.stop(container)

    engine.permit(key, container, 2, card=1)
    engine.started(container)

    assert engine.inside(container, "sh", "-c", "ls /dev/nvidia[0-9]") == "/dev/nvidia1\n"


def test_a_stale_generation_is_refused(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container, 1)
    engine.write_grant(key, container, 2)

    assert engine.refused(container).startswith("stale generation: ")


def test_without_a_grant_the_spec_alone_starts_nothing(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container)
    engine.server.exec("rm", f"/run/ds01/grant/{key}")

    assert engine.refused(container).startswith("it holds no allocation now; container-start asks for one")


def test_a_borrowed_device_name_is_refused(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container)
    engine.started(container)
    _, borrower = engine.create(key=key)

    assert engine.refused(borrower).startswith("this device name belongs to another container")


def test_a_refused_start_can_be_permitted_later(engine: Engine) -> None:
    key, container = engine.create()
    engine.permit(key, container, 1)
    engine.write_grant(key, container, 2)
    engine.refused(container)

    engine.permit(key, container, 2)

    engine.started(container)


def test_a_workspace_that_is_still_the_same_starts(engine: Engine) -> None:
    key, container = engine.create("--mount", f"type=bind,source={WORKSPACE},target=/workspace")
    engine.permit(key, container, mounts=WORKSPACE)

    engine.started(container)

    engine.inside(container, "touch", "/workspace/here")
    assert engine.server.exec("stat", "--format", "%u", f"{WORKSPACE}/here").stdout == f"{ALICE}\n"


def test_a_workspace_swapped_for_a_symlink_after_create_is_refused(engine: Engine) -> None:
    victim = "/home/bob/secret"
    engine.server.exec("mkdir", "-p", "-m", "700", victim)
    mine = "/home/alice/mine"
    engine.server.exec("mkdir", "-p", mine, user="alice")
    key, container = engine.create("--mount", f"type=bind,source={mine},target=/workspace")
    engine.permit(key, container, mounts=mine)
    engine.server.exec("mv", mine, f"{mine}.away", user="alice")
    engine.server.exec("ln", "-s", victim, mine, user="alice")

    words = engine.refused(container)

    assert words.startswith("/workspace is not the directory that was checked when the container was created")
    engine.write_grant(key, container)  # without the mount's line: the engine alone would have let it through
    engine.started(container)


def test_an_image_whose_workspace_is_a_symlink_is_looked_at_where_the_runtime_mounted(engine: Engine) -> None:
    server = engine.server
    server.docker("run", "--name", "linker", "bb", "sh", "-c", "mkdir -p /srv/ws && ln -s /srv/ws /workspace")
    server.docker("commit", "linker", "linked")
    key, container = engine.create("--mount", f"type=bind,source={WORKSPACE},target=/workspace", image="linked")
    engine.permit(key, container, mounts=WORKSPACE)

    engine.started(container)


# ── the init ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LISTENER = "trap 'echo got >/tmp/mark; exit' TERM; echo >/tmp/up; while :; do sleep 0.05; done"


@pytest.fixture
def running(engine: Engine) -> EngineId:
    key, container = engine.create()
    engine.permit(key, container)
    engine.started(container)
    return container


def is_there(engine: Engine, container: EngineId, path: str) -> bool:
    return engine.server.docker("exec", container, "test", "-e", path, check=False).returncode == 0


def copied_out(engine: Engine, container: EngineId, path: str) -> str:
    """A file of a stopped container."""
    engine.server.docker("cp", f"{container}:{path}", "/run/copied")
    return engine.server.file("/run/copied")


def test_a_container_that_does_nothing_stops_at_once(engine: Engine, running: EngineId) -> None:
    assert engine.stop(running) < 1
    assert engine.exit_code(running) == 0


def test_a_stop_reaches_a_process_of_docker_exec(engine: Engine, running: EngineId) -> None:
    engine.server.docker("exec", "--detach", running, "sh", "-c", LISTENER)
    until("it listens", lambda: is_there(engine, running, "/tmp/up"), 10)

    assert engine.stop(running) < 1

    assert copied_out(engine, running, "/tmp/mark") == "got\n"
    assert engine.exit_code(running) == 0


def test_a_stop_waits_for_nobody_at_a_prompt(engine: Engine, running: EngineId) -> None:
    terminal = engine.server.spawn_pty("docker", "exec", "--interactive", "--tty", running, "sh")
    try:
        terminal.expect("[$#] ")
        assert engine.stop(running) < 1
    finally:
        terminal.close()
    assert engine.exit_code(running) == 0


def test_a_process_that_does_not_end_is_killed_when_the_grace_is_over(engine: Engine, running: EngineId) -> None:
    engine.server.docker("exec", "--detach", running, "sh", "-c", "trap '' TERM; echo >/tmp/up; sleep 60")
    until("it is deaf", lambda: is_there(engine, running, "/tmp/up"), 10)

    begin = time.monotonic()
    engine.server.docker("stop", "--time", "1", running)

    assert 1 <= time.monotonic() - begin < 3
    assert engine.exit_code(running) == 137


def test_orphans_of_docker_exec_are_reaped(engine: Engine, running: EngineId) -> None:
    engine.inside(running, "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.2 &); done")

    def alone() -> bool:
        top = engine.server.docker("top", running, "-o", "pid,stat").stdout
        return len(top.splitlines()) == 2  # its header, and process 1

    until("every orphan is gone, no zombie stays", alone, 10)
