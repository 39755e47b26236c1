"""One virtual GPU server for a test: a box with its engine, cards and people, and the daemon installed in it.

It orders the box about and reads what it left; it knows nothing of what the daemon should do.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.testbed.inside import open_in_root
from tests.testbed.nvml.mock import Mock
from tests.testbed.terminal import Terminal

HERE: Final = Path(__file__).resolve().parent
DEFAULT_LAYOUT: Final = HERE / "layouts" / "default.json"
DAEMON: Final = "ds01d.service"
ENGINE: Final = "docker.service"

_numbers = count(1)


class Failed(AssertionError):
    """A command in the box ended with another code than 0; says which and what it wrote."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        super().__init__(
            f"{shlex.join(map(str, done.args))} ended with {done.returncode}\n"
            f"--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        )
        self.done = done


def until(what: str, check: Callable[[], bool], timeout: float) -> None:
    """Wait until the check holds, looking every 20 ms and after some seconds every 200; `timeout` in seconds."""
    began = time.monotonic()
    while not check():
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError(f"{what}: not within {timeout} s")
        # A look costs as much as what it waits for, and there are two cores.
        time.sleep(min(0.02 + waited / 20, 0.2))


class Server:
    """A box. `with Server() as server:` boots it, makes it a GPU server, installs the daemon; at the end it is gone."""

    def __init__(
        self,
        name: str = "",
        *,
        image: str = "trixie",
        live_restore: bool = False,
        layout: Path = DEFAULT_LAYOUT,
        provision: bool = True,
        install: bool = True,
    ) -> None:
        self.name = name or f"t{os.getpid()}-{next(_numbers)}"
        self._image, self._live_restore, self._layout = image, live_restore, layout
        self._provision, self._install = provision, provision and install
        self._nvml: Mock | None = None

    # --- its life

    def start(self) -> None:
        """Boots, provisions and installs, as far as it was asked for; leaves nothing behind when that fails."""
        self._own("box", "start", "--image", self._image, self.name)
        try:
            if self._provision:
                more = ["--live-restore"] if self._live_restore else []
                self._own("provision", "--layout", str(self._layout), *more, self.name)
            if self._install:
                self.install()
        except BaseException:
            self.stop()
            raise

    def install(self, *options: str) -> None:
        """Puts the checkout as it is now into the box; `--no-start` leaves the daemon down."""
        self._own("install", *options, self.name)

    def reboot(self, *, hard: bool = False) -> None:
        """The same disk, an empty /run, a new boot id; `hard` is a power cut."""
        self._own("box", "reboot", *(["--hard"] if hard else []), self.name)

    def stop(self) -> None:
        """Cuts the power and removes every trace."""
        self._own("box", "stop", self.name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @staticmethod
    def _own(script: str, *args: str) -> str:
        done = subprocess.run([HERE / script, *args], capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise Failed(done)
        return done.stdout.strip()

    # --- commands in it

    def argv(
        self, *argv: str, user: str | None = None, own_cgroup: bool = False, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The host's command line that runs this one in the box.

        Without `own_cgroup` the process belongs to no cgroup of the box, which is fine for what only asks.
        """
        command = list(argv)
        if env:
            command = ["env", *(f"{key}={value}" for key, value in env.items()), *command]
        if own_cgroup:
            who = ["--uid", user, "--property", "WorkingDirectory=~"] if user else []
            return self.argv("systemd-run", "--quiet", "--pipe", "--wait", "--collect", *who, "--", *command)
        return [str(HERE / "box"), "exec", *(["-u", user] if user else []), self.name, *command]

    def exec(
        self,
        *argv: str,
        user: str | None = None,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess.run calls it so
        timeout: float = 60,
        own_cgroup: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end, as root or as `user`; `timeout` in seconds."""
        command = self.argv(*argv, user=user, own_cgroup=own_cgroup, env=env)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                self.signal(process, signal.SIGKILL)
                raise
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode:
            raise Failed(done)
        return done

    def popen(
        self,
        *argv: str,
        user: str | None = None,
        own_cgroup: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Starts a command with three pipes and does not wait.

        End it with `signal`: its own `kill` would only hit the way into the box.
        """
        return subprocess.Popen(
            self.argv(*argv, user=user, own_cgroup=own_cgroup, env=env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @staticmethod
    def signal(process: "subprocess.Popen[bytes] | subprocess.Popen[str]", number: signal.Signals) -> None:
        """Signals a command of `popen` itself: it shares its process group with the way into the box."""
        if process.poll() is None:
            os.killpg(process.pid, number)

    def spawn_pty(
        self,
        *argv: str,
        user: str | None = None,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> Terminal:
        """Starts a command on a terminal of the box, one with a name in its /dev/pts that belongs to the user."""
        uid = int(self.exec("id", "-u", user).stdout) if user else 0
        command = self.argv(*argv, user=user, env={"TERM": "xterm", **(env or {})})
        return Terminal(command, self.root / "dev/pts", uid=uid, rows=rows, columns=columns)

    def docker(self, *args: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """The engine's own command, as root."""
        return self.exec("docker", *args, check=check, timeout=timeout)

    def init_of(self, container: str) -> str:
        """The first process of a container, as the box counts; the engine's word."""
        return self.docker("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()

    def stuck(self, program: str) -> None:
        """Waits until the one process of this name that writes without end gets rid of nothing more."""
        until(f"there is one {program}", lambda: len(self._pids_of(program)) == 1, 10)
        (pid,) = self._pids_of(program)
        seen = [-1]

        def still() -> bool:
            seen.append(self._written(pid))
            time.sleep(0.1)
            return seen[-5:] == [seen[-1]] * 5

        until(f"{program} is stuck", still, 20)

    def _pids_of(self, program: str) -> list[str]:
        return self.exec("pgrep", "-x", program, check=False).stdout.split()

    def _written(self, pid: str) -> int:
        """Bytes, by proc(5)."""
        return int(self.file(f"/proc/{pid}/io").partition("wchar: ")[2].split()[0])

    # --- its parts

    @property
    def root(self) -> Path:
        """Its root directory as the host sees it; absolute symlinks in it lead out, so read with `file`."""
        return Path(self._own("box", "path", self.name, "root"))

    @property
    def shared(self) -> Path:
        """What the box sees as /host."""
        return Path(self._own("box", "path", self.name, "shared"))

    @property
    def nvml(self) -> Mock:
        """The cards: what the mock driver in the box answers."""
        if self._nvml is None:
            self._nvml = Mock(self.shared / "nvml.state")
        return self._nvml

    def file(self, path: str) -> str:
        """The text of a file in the box."""
        with os.fdopen(open_in_root(self.root, path, os.O_RDONLY), encoding="utf-8") as file:
            return file.read()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of root's in the box, in place."""
        fd = open_in_root(self.root, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)

    def add_user(self, name: str, *groups: str) -> None:
        """A person with a home and a workspace; names as LDAP gives them (h.baker@lab.lan) are welcome."""
        home = f"/home/{name}"
        more = ["--groups", ",".join(groups)] if groups else []
        self.exec("useradd", "--badname", "--create-home", "--home-dir", home, "--shell", "/bin/bash", *more, name)
        self.exec("mkdir", f"{home}/workspace", user=name)

    # --- its services

    def main_pid(self, unit: str) -> int:
        """The main process of a unit as the box counts, or 0."""
        return int(self.exec("systemctl", "show", "--property", "MainPID", "--value", unit).stdout)

    def is_active(self, unit: str) -> bool:
        """Whether systemd calls it active: for the daemon that means READY was said."""
        return self.exec("systemctl", "is-active", "--quiet", unit, check=False).returncode == 0

    def kill(self, unit: str) -> int:
        """SIGKILL to a unit's main process; returns its pid when systemd has seen it die."""
        pid = self.main_pid(unit)
        assert pid > 0, f"cannot kill {unit}: it is not running\n{self.journal(unit)}"
        self.exec("kill", "-KILL", str(pid))
        until(f"{unit} {pid} dies", lambda: self.main_pid(unit) != pid, 10)
        return pid

    def kill_daemon(self) -> int:
        """SIGKILL to the daemon; systemd will start it again."""
        return self.kill(DAEMON)

    def daemon_up(self, timeout: float = 20) -> None:
        """Waits until the daemon is ready; tells its journal when it never is."""
        try:
            until("the daemon is ready", lambda: self.is_active(DAEMON), timeout)
        except TimeoutError as error:
            error.add_note(self.journal())
            raise

    def kill_dockerd(self) -> None:
        """SIGKILL to the engine, and waits until it answers again."""
        self.kill(ENGINE)
        self.engine_up()

    def restart_dockerd(self) -> None:
        """An orderly restart of the engine, and waits until it answers again."""
        self.exec("systemctl", "restart", ENGINE)
        self.engine_up()

    def engine_up(self, timeout: float = 30) -> None:
        """Waits until the engine answers."""
        until("the engine answers", lambda: self.docker("version", check=False).returncode == 0, timeout)

    def journal(self, unit: str = DAEMON) -> str:
        """What a unit has written since it was first booted."""
        return self.exec("journalctl", "--no-pager", "--output", "cat", "--unit", unit).stdout
