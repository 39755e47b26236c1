"""ds01-init as process 1 of a real pid namespace: it reaps, waits, passes a stop on to everything, and leaves last."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

pytestmark = pytest.mark.root

PATIENCE_S = 10.0
# It writes a line into its first argument when SIGTERM reaches it.
LISTENER = 'trap \'echo got >"$0"; exit 0\' TERM; echo up >"$0.up"; while :; do sleep 0.05; done'


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)


class Space:
    """A pid namespace whose process 1 is the init; `enter` brings processes in as `docker exec` does."""

    def __init__(self, init: Path, *prefix: str) -> None:
        self.prefix = prefix
        self.entered: list[subprocess.Popen[bytes]] = []
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.outer = subprocess.Popen([*unshare, *prefix, str(init)])
        until(lambda: bool(self._children()), "init is there")
        self.pid = self._children()[0]
        until(lambda: self._stat().startswith(f"{self.pid} (ds01-init) S "), "init runs and waits")

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def _stat(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text()

    def enter(self, *command: str, fd: int | None = None) -> subprocess.Popen[bytes]:
        entering = ["nsenter", "-t", str(self.pid), "-p", "-m", *self.prefix, *command]
        self.entered.append(subprocess.Popen(entering, stdin=fd, stdout=fd, stderr=fd))
        return self.entered[-1]

    def states(self) -> dict[int, str]:
        """The state letter of every process in there, by its pid in there, without process 1."""
        seen = {}
        for entry in Path(f"/proc/{self.pid}/root/proc").iterdir():
            if entry.name.isdigit() and entry.name != "1":
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    seen[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        return seen

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send a stop as the engine does; return how many seconds the end took."""
        begin = time.monotonic()
        os.kill(self.pid, number)
        self.outer.wait(PATIENCE_S)
        return time.monotonic() - begin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.outer.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        for process in (self.outer, *self.entered):
            process.wait(PATIENCE_S)


@pytest.fixture
def space(init: Path) -> Iterator[Space]:
    with Space(init) as made:
        yield made


def listen(space: Space, mark: Path, *prefix: str) -> subprocess.Popen[bytes]:
    """Bring a process in that notes SIGTERM in `mark`; return when it would hear it."""
    process = space.enter(*prefix, "sh", "-c", LISTENER, str(mark))
    until(Path(f"{mark}.up").exists, "the listener is up")
    return process


def test_it_refuses_to_run_when_it_is_not_process_1(init: Path) -> None:
    # In a namespace of its own: one that ran all the same would pass the first stop on to this whole machine.
    fenced = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$0"; exit $?', str(init)]
    done = subprocess.run(fenced, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    assert done.returncode == 1
    assert done.stderr == "ds01-init: cannot run: not process 1 of a container\n"


def test_it_needs_no_library_of_the_image(init: Path) -> None:
    headers = subprocess.run(["readelf", "-lW", str(init)], capture_output=True, text=True, check=True).stdout

    assert "INTERP" not in headers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_alone_it_ends_at_once_with_0_on_every_stop_signal(space: Space, number: signal.Signals) -> None:
    assert space.stop(number) < 1
    assert space.outer.returncode == 0


def test_it_goes_on_waiting_when_everything_else_has_ended(space: Space) -> None:
    space.enter("true").wait(PATIENCE_S)
    until(lambda: space.states() == {}, "nobody else is there")

    with pytest.raises(subprocess.TimeoutExpired):
        space.outer.wait(0.3)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE, signal.SIGALRM, signal.SIGCONT])
def test_other_signals_neither_end_it_nor_reach_anybody(space: Space, tmp_path: Path, number: signal.Signals) -> None:
    listen(space, tmp_path / "mark")

    os.kill(space.pid, number)

    with pytest.raises(subprocess.TimeoutExpired):
        space.outer.wait(0.2)
    assert not (tmp_path / "mark").exists()


def test_it_uses_no_processor_while_it_waits(space: Space) -> None:
    space.enter("sleep", "30")
    until(lambda: bool(space.states()), "somebody is there")
    before = _switches(space.pid)
    time.sleep(0.5)

    assert _switches(space.pid) - before <= 1


def _switches(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def test_it_reaps_orphans(space: Space) -> None:
    space.enter("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 &); done").wait(PATIENCE_S)
    until(lambda: len(space.states()) == 10, "ten orphans are there")

    until(lambda: space.states() == {}, "every orphan is reaped")


def test_a_stop_reaches_a_process_that_came_in_by_exec(space: Space, tmp_path: Path) -> None:
    listen(space, tmp_path / "mark")

    assert space.stop() < 1
    assert (tmp_path / "mark").read_text() == "got\n"


def test_a_stop_reaches_another_session_and_an_orphan(space: Space, tmp_path: Path) -> None:
    listen(space, tmp_path / "session", "setsid")
    space.enter("sh", "-c", f"(setsid sh -c '{LISTENER.replace(chr(39), chr(34))}' {tmp_path}/orphan &)")
    until(Path(f"{tmp_path}/orphan.up").exists, "the orphan is up")

    assert space.stop() < 1
    assert [(tmp_path / name).read_text() for name in ("session", "orphan")] == ["got\n", "got\n"]


def test_a_stop_reaches_a_stopped_process(space: Space, tmp_path: Path) -> None:
    halting = f"trap 'echo got >{tmp_path}/mark; exit' TERM; sh -c 'kill -STOP $PPID'; while :; do sleep 0.05; done"
    (tmp_path / "script").write_text(halting)
    space.enter("sh", "-c", f"sh {tmp_path}/script &").wait(PATIENCE_S)  # an orphan: nsenter would stop with its child
    until(lambda: "T" in space.states().values(), "it is stopped")

    assert space.stop() < 1
    assert (tmp_path / "mark").read_text() == "got\n"


def test_it_leaves_when_the_last_process_has_ended_and_not_before(space: Space, tmp_path: Path) -> None:
    slow = f"trap 'sleep 0.5; echo done >{tmp_path}/done; exit' TERM; echo >{tmp_path}/up; while :; do sleep 0.05; done"
    space.enter("sh", "-c", slow)
    until((tmp_path / "up").exists, "the slow one is up")

    assert 0.5 <= space.stop() < 1.5
    assert (tmp_path / "done").read_text() == "done\n"


def test_it_stays_with_a_process_that_does_not_end(space: Space, tmp_path: Path) -> None:
    stubborn = f"trap '' TERM; trap 'echo >{tmp_path}/hup' HUP; echo >{tmp_path}/up; while :; do sleep 0.05; done"
    space.enter("setsid", "sh", "-c", stubborn)
    until((tmp_path / "up").exists, "the stubborn one is up")

    os.kill(space.pid, signal.SIGTERM)

    with pytest.raises(subprocess.TimeoutExpired):
        space.outer.wait(1)
    assert not (tmp_path / "hup").exists()  # no terminal, so it is no shell


def test_a_stop_is_passed_on_once_and_again_when_asked_again(space: Space, tmp_path: Path) -> None:
    count = f"trap 'echo got >>{tmp_path}/count' TERM; echo >{tmp_path}/up; while :; do sleep 0.02; done"
    space.enter("sh", "-c", count)
    until((tmp_path / "up").exists, "it counts")
    heard = tmp_path / "count"

    os.kill(space.pid, signal.SIGTERM)
    until(lambda: heard.exists() and heard.read_text() == "got\n", "the first one")
    time.sleep(0.4)
    assert heard.read_text() == "got\n"

    os.kill(space.pid, signal.SIGTERM)
    until(lambda: heard.read_text() == "got\ngot\n", "the second one")


def test_a_shell_at_its_prompt_does_not_hold_up_a_stop(space: Space) -> None:
    master, terminal = pty.openpty()
    space.enter("setsid", "--ctty", "bash", "--norc", "-i", fd=terminal)
    os.close(terminal)
    os.write(master, b"PS1=; echo rea''dy\n")
    _read_until(master, b"ready")

    assert space.stop() < 1
    os.close(master)


def test_a_program_on_a_terminal_that_takes_its_time_is_not_hung_up(space: Space, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    pause = f"read -t {{}} <>{tmp_path}/never"  # without a child: it is the only process there
    saving = f"trap '{pause.format(0.5)}; echo saved >{tmp_path}/saved; exit' TERM; echo ready; "
    saving += f"while :; do {pause.format(0.05)}; done"
    master, terminal = pty.openpty()
    space.enter("setsid", "--ctty", "bash", "-c", saving, fd=terminal)
    os.close(terminal)
    _read_until(master, b"ready")

    assert space.stop() < 1.5
    assert (tmp_path / "saved").read_text() == "saved\n"
    os.close(master)


def test_the_job_in_a_shell_says_its_last_words_before_the_shell_is_hung_up(space: Space) -> None:
    master, terminal = pty.openpty()
    space.enter("setsid", "--ctty", "bash", "--norc", "-i", fd=terminal)
    os.close(terminal)
    os.write(
        master,
        b"bash -c 'trap \"sleep 0.5; echo last words; exit\" TERM; echo rea''dy; while :; do sleep 0.05; done'\n",
    )
    _read_until(master, b"ready\r\n")

    os.kill(space.pid, signal.SIGTERM)

    _read_until(master, b"last words\r\n")
    space.outer.wait(PATIENCE_S)
    os.close(master)


def _read_until(terminal: int, words: bytes) -> None:
    seen = b""
    while words not in seen:
        piece = os.read(terminal, 4096)
        assert piece, seen
        seen += piece


def test_it_works_as_an_unprivileged_user(init: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        reachable = Path(directory)
        reachable.chmod(0o777)
        program = Path(shutil.copy(init, reachable))
        with Space(program, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") as space:
            listen(space, reachable / "mark")

            assert space.stop() < 1
        assert (reachable / "mark").read_text() == "got\n"
        assert (reachable / "mark").stat().st_uid == 65534
