"""Process → container under every layout there is, and what is read of real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds01d.adapters.cgroups import Cgroups, path_of
from ds01d.adapters.procfs import Process, Procfs, cgroup_paths, container_of

A = "a" * 32 + "0123456789abcdef" * 2
B = "b" * 64

#: layout, /proc/PID/cgroup, runtime, path of the container
PAYLOADS = [
    ("docker, cgroupfs, v2", f"0::/docker/{A}\n", "docker", f"/docker/{A}"),
    ("docker, cgroupfs, v1", f"9:name=systemd:/docker/{A}\n8:pids:/docker/{A}\n0::/\n", "docker", f"/docker/{A}"),
    ("docker, cgroupfs, parent", f"0::/ds01/student/alice/{A}\n", "unknown", f"/ds01/student/alice/{A}"),
    ("docker, systemd", f"0::/system.slice/docker-{A}.scope\n", "docker", f"/system.slice/docker-{A}.scope"),
    (
        "docker, systemd, parent",
        f"0::/ds01.slice/ds01-student.slice/ds01-student-alice.slice/docker-{A}.scope\n",
        "docker",
        f"/ds01.slice/ds01-student.slice/ds01-student-alice.slice/docker-{A}.scope",
    ),
    ("systemd inside", f"0::/docker/{A}/system.slice/x.service\n", "docker", f"/docker/{A}"),
    (
        "podman, systemd",
        f"0::/machine.slice/libpod-{A}.scope\n",
        "podman",
        f"/machine.slice/libpod-{A}.scope",
    ),
    (
        "podman, crun",
        f"0::/machine.slice/libpod-{A}.scope/container\n",
        "podman",
        f"/machine.slice/libpod-{A}.scope",
    ),
    ("podman, cgroupfs", f"0::/libpod_parent/libpod-{A}\n", "podman", f"/libpod_parent/libpod-{A}"),
    (
        "podman, split",
        f"0::/system.slice/web.service/libpod-payload-{A}\n",
        "podman",
        f"/system.slice/web.service/libpod-payload-{A}",
    ),
    (
        "containerd",
        f"0::/kubepods.slice/cri-containerd-{A}.scope\n",
        "containerd",
        f"/kubepods.slice/cri-containerd-{A}.scope",
    ),
    ("cri-o", f"0::/kubepods.slice/crio-{A}.scope\n", "cri-o", f"/kubepods.slice/crio-{A}.scope"),
    ("nerdctl", f"0::/system.slice/nerdctl-{A}.scope\n", "nerdctl", f"/system.slice/nerdctl-{A}.scope"),
    ("private cgroup namespace", f"0::/../{A}\n", "unknown", f"/../{A}"),
    ("zombie on v1", f"9:name=systemd:/\n8:pids:/\n0::/docker/{A}\n", "docker", f"/docker/{A}"),
    ("removed cgroup", f"0::/docker/{A} (deleted)\n", "docker", f"/docker/{A}"),
    (
        "moved about in memory only",
        f"4:memory:/{B}\n8:pids:/docker/{A}\n0::/\n",
        "docker",
        f"/docker/{A}",
    ),
    ("controllers together", f"3:cpu,cpuacct:/\n2:pids,devices:/docker/{A}\n", "docker", f"/docker/{A}"),
]


@pytest.mark.parametrize(("text", "runtime", "path"), [row[1:] for row in PAYLOADS], ids=[row[0] for row in PAYLOADS])
def test_a_payload_belongs_to_its_container(text: str, runtime: str, path: str) -> None:
    ref = container_of(text)

    assert ref is not None
    assert (ref.id, ref.runtime, ref.path, ref.nested, ref.rootless_uid) == (A, runtime, path, (), None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("0::/\n", id="podman without cgroups, or the host's root"),
        pytest.param(f"0::/machine.slice/libpod-conmon-{A}.scope\n", id="conmon"),
        pytest.param("0::/docker/buildkit/abcdefghijklmnopqrstuvwxy\n", id="buildkit"),
        pytest.param("0::/system.slice/slurmstepd.scope/job_17/step_0\n", id="slurm"),
        pytest.param("0::/user.slice/user-1001.slice/session-3.scope\n", id="login"),
        pytest.param(f"0::/docker/{A[:32]}\n", id="32 digits"),
        pytest.param(f"0::/docker/{A.upper()}\n", id="upper case"),
        pytest.param(f"0::/docker/x{A}\n", id="a longer segment"),
        pytest.param(f"0::/user.slice/docker-{A}.scope.d\n", id="a segment that only begins like one"),
        pytest.param(f"0::/home/not-docker-{A}.scope\n", id="a segment that only ends like one"),
        pytest.param("", id="nothing"),
        pytest.param("garbage\n:::\n", id="garbage"),
    ],
)
def test_what_is_no_payload_belongs_to_no_container(text: str) -> None:
    assert container_of(text) is None


def test_a_rootless_engines_container_names_its_user() -> None:
    path = f"/user.slice/user-1004.slice/user@1004.service/user.slice/docker-{A}.scope"

    ref = container_of(f"0::{path}\n")

    assert ref is not None
    assert (ref.id, ref.runtime, ref.rootless_uid) == (A, "docker", 1004)


def test_the_outermost_container_is_the_one_on_this_host() -> None:
    ref = container_of(f"0::/system.slice/docker-{A}.scope/docker/{B}\n")

    assert ref is not None
    assert (ref.id, ref.nested) == (A, (B,))


def test_the_v2_line_is_asked_first_and_memory_last() -> None:
    text = "4:memory:/m\n11:freezer:/f\n3:cpuset:/c\n5:devices:/d\n8:pids:/p\n9:name=systemd:/s\n0::/v2\n"

    assert cgroup_paths(text) == ["/v2", "/s", "/p", "/d", "/c", "/f", "/m"]


# --- real processes ---------------------------------------------------------------------------------------------------


@contextmanager
def running(*argv: str | Path, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, user=user, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def process(procfs: Procfs, pid: int) -> Process:
    found = procfs.process(pid)
    assert found is not None
    return found


def test_a_real_process_is_read_as_it_is() -> None:
    procfs = Procfs()

    me = process(procfs, os.getpid())

    ticks_since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert (me.ppid, me.uid, me.exe) == (os.getppid(), os.getuid(), os.path.realpath("/proc/self/exe"))
    assert 0 < me.start_time <= ticks_since_boot
    assert me.command == " ".join(sys.orig_argv)
    assert me.start_time == procfs.start_time(os.getpid())


def test_a_process_with_an_evil_name_is_read_right(tmp_path: Path) -> None:
    evil = tmp_path / "x) S 1 (y"
    shutil.copy("/bin/sleep", evil)

    with running(evil, "60") as sleeper:
        seen = process(Procfs(), sleeper.pid)

    assert (seen.ppid, seen.exe) == (os.getpid(), str(evil))


@pytest.mark.root
def test_a_process_in_a_cgroup_whose_name_is_no_text_is_read_all_the_same() -> None:
    tree = Cgroups().hierarchies[-1].mount
    odd = Path(os.fsdecode(f"{tree}/ds01-test-{os.getpid()}-".encode() + b"\xff"))
    odd.mkdir()
    try:
        with running("sleep", "60") as sleeper:
            (odd / "cgroup.procs").write_text(str(sleeper.pid))

            assert process(Procfs(), sleeper.pid).container is None
            text = Procfs().cgroup_text(sleeper.pid)
            assert text is not None
            # Where it is cannot be said, and whatever has that path without its odd byte is another one.
            assert str(path_of(text)).count("ds01-test") == 0
            sleeper.kill()
            sleeper.wait()
    finally:
        odd.rmdir()


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_process_cannot_say_whose_it_is_by_its_name(end: str) -> None:
    naming = ("sh", "-c", 'printf %s "$1" >/proc/$$/comm; echo; read _', "sh", f"a{end}Uid:\t0\t0")
    with subprocess.Popen(naming, user=1234, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named:
        assert named.stdout is not None
        named.stdout.readline()
        assert f"a{end}Uid" in Path(f"/proc/{named.pid}/comm").read_bytes().decode()
        assert process(Procfs(), named.pid).uid == 1234


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_cgroup_cannot_say_by_its_name_that_it_is_another(end: str) -> None:
    found = container_of(f"0::/user.slice/x{end}0::/docker/{B}/y\n")
    assert found is not None
    assert found.path == f"/user.slice/x{end}0::/docker/{B}"


def test_another_users_process_is_that_users() -> None:
    with running("sleep", "60", user=65534) as sleeper:
        assert process(Procfs(), sleeper.pid).uid == 65534


def test_a_process_that_is_gone_is_none() -> None:
    with running("true") as ended:
        ended.wait()

    assert Procfs().process(ended.pid) is None
    assert Procfs().start_time(ended.pid) is None
    assert Procfs().cgroup_text(ended.pid) is None
    assert Procfs().pidfd(ended.pid) is None


def test_a_zombie_goes_by_its_name_in_brackets() -> None:
    with running("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)

        assert process(Procfs(), ended.pid).command == "[true]"


def test_a_pidfd_holds_the_process_that_was_meant() -> None:
    procfs = Procfs()
    with running("sleep", "60") as sleeper:
        held = procfs.pidfd(sleeper.pid, procfs.start_time(sleeper.pid))
        assert held is not None

        signal.pidfd_send_signal(held, signal.SIGKILL)
        os.close(held)

        assert sleeper.wait() == -signal.SIGKILL


def test_a_pid_that_was_used_again_is_not_held() -> None:
    procfs = Procfs()
    started = procfs.start_time(os.getpid())
    assert started is not None
    open_before = len(list(Path("/proc/self/fd").iterdir()))

    assert procfs.pidfd(os.getpid(), started - 1) is None

    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_the_boot_id_is_the_kernels() -> None:
    assert Procfs().boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_changed_start_time_between_two_reads_is_another_process(tmp_path: Path) -> None:
    at = tmp_path / "proc/77"
    at.mkdir(parents=True)
    (at / "stat").write_text("77 (x) S 1" + " 0" * 17 + " 500 0\n")
    (at / "status").write_text("Name:\tx\nUid:\t5\t5\t5\t5\n")
    (at / "cgroup").write_text(f"0::/docker/{A}\n")
    (at / "cmdline").write_bytes(b"python\0train.py\0")

    class Reused(Procfs):
        def start_time(self, pid: int) -> int | None:
            before = super().start_time(pid)
            return None if before is None else before + 1

    seen = process(Procfs(tmp_path), 77)

    assert (seen.start_time, seen.uid, seen.login_uid, seen.exe, seen.command) == (
        500,
        5,
        None,
        None,
        "python train.py",
    )
    assert seen.container is not None
    assert Reused(tmp_path).process(77) is None


# --- infrastructure ---------------------------------------------------------------------------------------------------


def program(directory: Path, name: str) -> Path:
    directory.mkdir(mode=0o755, exist_ok=True)
    return Path(shutil.copy("/bin/sleep", directory / name))


def is_infrastructure(root: Path, path: Path, user: int = 0) -> bool:
    procfs = Procfs(root, Path("/proc"))
    with running(path, "60", user=user) as started:
        return procfs.infrastructure(process(procfs, started.pid))


@pytest.fixture
def host() -> Iterator[Path]:
    """A root directory of root's, that other users may enter."""
    host = Path("/var/lib") / f"ds01-test-{os.getpid()}"
    host.mkdir(mode=0o755)
    yield host
    shutil.rmtree(host)


@pytest.mark.parametrize("name", ["nvidia-smi", "Xorg", "X", "gnome-shell"])
def test_a_tool_of_the_host_is_infrastructure_whoever_runs_it(host: Path, name: str) -> None:
    assert is_infrastructure(host, program(host / "bin", name), user=65534)


@pytest.mark.parametrize("name", ["nvidia-persistenced", "nv-hostengine", "dcgm-exporter"])
def test_a_service_is_infrastructure_under_a_uid_of_the_system_only(host: Path, name: str) -> None:
    service = program(host / "bin", name)

    assert is_infrastructure(host, service, user=998)
    assert not is_infrastructure(host, service, user=1001)


def test_a_name_alone_excludes_nobody(host: Path) -> None:
    home = host / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    mine = program(home / "bin", "nvidia-smi")
    given = program(host / "bin", "Xorg")
    os.chown(given, 65534, 65534)

    assert not is_infrastructure(host, mine, user=65534)
    assert not is_infrastructure(host, given, user=65534)
    assert not is_infrastructure(host, program(host / "bin", "python3"), user=65534)


def test_a_program_that_others_may_replace_is_no_infrastructure(host: Path) -> None:
    shared = program(host / "shared", "nvidia-smi")
    shared.parent.chmod(0o777)

    assert not is_infrastructure(host, shared)


def test_a_containers_file_of_the_same_path_is_no_infrastructure(host: Path) -> None:
    path = program(host / "bin", "nvidia-smi")
    other = program(host / "image", "nvidia-smi")
    script = f"mount --bind {other} {path} && exec {path} 60"
    procfs = Procfs(host, Path("/proc"))

    with running("unshare", "--mount", "--propagation", "private", "sh", "-c", script) as container:
        deadline = time.monotonic() + 10
        while (seen := process(procfs, container.pid)).exe != str(path) and time.monotonic() < deadline:
            time.sleep(0.01)

        assert seen.exe == str(path)
        assert not procfs.infrastructure(seen)
