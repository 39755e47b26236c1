"""The test bed itself: boxes boot, reboot and go without a trace; their engine knows CDI and the vendor's spec."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.testbed import gpus
from tests.testbed.server import DEFAULT_LAYOUT, HERE, Failed, Server, until
from tests.testbed.terminal import Terminal

pytestmark = pytest.mark.system

BOXES = Path(os.environ.get("DS01_BOXES", "/var/lib/ds01-testbed"))


def traces(name: str) -> list[str]:
    """Everything on the host that a box of this name could have left."""
    found = [str(p) for p in (BOXES / name, *Path("/sys/fs/cgroup").glob(f"*/box.{name}")) if p.exists()]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}/" in line]
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{BOXES}/{name}" in command:
            found.append(f"{proc.name}: {command}")
    return found


def own(script: str, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HERE / script, *args], capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **env}
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(install=False) as server:
        yield server


@pytest.fixture
def bare() -> Iterator[Server]:
    with Server(provision=False) as server:
        yield server


def test_a_box_boots_with_systemd_and_nothing_failed(server: Server) -> None:
    assert server.exec("hostname").stdout.strip() == server.name
    assert server.exec("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert server.exec("systemctl", "--failed", "--no-legend").stdout == ""


def test_a_reboot_keeps_the_disk_loses_run_and_has_a_new_boot_id(bare: Server) -> None:
    bare.write("/root/keep", "kept")
    bare.write("/run/lose", "lost")
    before = bare.file("/proc/sys/kernel/random/boot_id"), bare.file("/etc/machine-id")
    bare.reboot()
    after = bare.file("/proc/sys/kernel/random/boot_id"), bare.file("/etc/machine-id")
    assert bare.file("/root/keep") == "kept"
    with pytest.raises(FileNotFoundError):
        bare.file("/run/lose")
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_power_cut_is_a_reboot_without_goodbye(bare: Server) -> None:
    bare.write("/root/keep", "kept")
    bare.reboot(hard=True)
    assert bare.file("/root/keep") == "kept"


def test_two_boxes_at_once_do_not_meet(server: Server, bare: Server) -> None:
    server.write("/root/mine", "1")
    with pytest.raises(FileNotFoundError):
        bare.file("/root/mine")
    assert server.file("/etc/machine-id") != bare.file("/etc/machine-id")
    assert bare.exec("hostname").stdout.strip() == bare.name
    assert server.exec("readlink", "/proc/1/ns/net").stdout != bare.exec("readlink", "/proc/1/ns/net").stdout
    names = [line.split()[0] for line in own("box", "list").stdout.splitlines()]
    assert {server.name, bare.name} <= set(names)


def test_a_stopped_box_leaves_nothing_on_the_host_even_with_a_container_running() -> None:
    server = Server(install=False)
    with server:
        server.docker("run", "-d", "bb", "sleep", "1000")
        assert traces(server.name)
    assert traces(server.name) == []


def test_a_half_failed_start_leaves_nothing_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    done = own("box", "start", "--image", str(tmp_path / "root"), "halfway")
    assert done.returncode == 1
    assert "cannot boot 'halfway'" in done.stderr
    assert traces("halfway") == []


def test_what_a_killed_run_left_is_cleared_away_by_the_next_start(bare: Server) -> None:
    dead = own("box", "path", bare.name, "root").stdout.split("/")[2]
    subprocess.run(["kill", "-KILL", dead], check=True)
    until(
        "it is dead", lambda: re.search(rf"^{bare.name} +dead", own("box", "list").stdout, re.MULTILINE) is not None, 5
    )
    bare.start()
    assert bare.exec("hostname").stdout.strip() == bare.name


def test_a_name_is_not_booted_twice(bare: Server) -> None:
    done = own("box", "start", bare.name)
    assert done.returncode == 1
    assert "it is up already" in done.stderr
    assert bare.exec("true").returncode == 0


def test_whoever_is_not_root_is_told_so() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "bash", "-s", "start", "x"],
        input=(HERE / "box").read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "it needs root" in done.stderr


def test_the_exit_code_and_both_outputs_come_through(server: Server) -> None:
    done = server.exec("sh", "-c", "cat; echo err >&2; exit 7", input="in", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "in", "err\n")
    with pytest.raises(Failed, match="ended with 7"):
        server.exec("sh", "-c", "exit 7")


def test_a_user_is_really_that_user(server: Server) -> None:
    done = server.exec("sh", "-c", "id -un; pwd; test -d workspace && echo $HOME", user="alice")
    assert done.stdout.split() == ["alice", "/home/alice", "/home/alice"]
    assert "ds01-admin" in server.exec("id", "-nG", user="dana").stdout
    assert server.exec("cat", "/root/.bashrc", user="bob", check=False).returncode != 0


def test_a_user_can_have_a_name_from_ldap(server: Server) -> None:
    server.add_user("h.baker@lab.lan", "lab")
    done = server.exec("sh", "-c", "id -un; pwd", user="h.baker@lab.lan")
    assert done.stdout.split() == ["h.baker@lab.lan", "/home/h.baker@lab.lan"]


def test_a_command_can_have_a_cgroup_of_its_own(server: Server) -> None:
    done = server.exec("sh", "-c", "id -un; cat /proc/self/cgroup", user="alice", own_cgroup=True)
    assert done.stdout.startswith("alice\n")
    assert re.search(r"name=systemd:/system.slice/run-", done.stdout)


def test_a_terminal_has_a_name_an_owner_and_a_size(server: Server) -> None:
    with server.spawn_pty("bash", "--norc", user="alice", rows=30, columns=100) as terminal:
        terminal.send("tty; stty size; stat -c '%U %a' $(tty)\n")
        terminal.expect(re.escape(terminal.name))
        terminal.expect("30 100")
        terminal.expect("alice 620")
        terminal.resize(40, 120)
        terminal.send("stty size\n")
        terminal.expect("40 120")
        server.write(terminal.name, "a notice\n")
        terminal.expect("a notice")
        terminal.send("exit 3\n")
        assert terminal.wait() == 3


def test_a_shell_for_people_is_a_users_login_on_a_terminal_with_a_name(server: Server) -> None:
    command = [str(HERE / "box"), "shell", server.name, "bob"]
    with Terminal(command, Path("/dev/pts"), uid=0, rows=30, columns=100) as terminal:
        terminal.send("echo user=$(id -un) home=$PWD tty=$(tty) size=$(stty size)\n")
        terminal.expect(r"user=bob home=/home/bob tty=/dev/pts/\d+ size=30 100")
        terminal.send("exit 4\n")
        assert terminal.wait() == 4


def test_a_terminal_hung_up_ends_what_ran_on_it(server: Server) -> None:
    def sleeping() -> bool:
        return server.exec("pgrep", "-x", "-f", "sleep 4321", check=False).returncode == 0

    with server.spawn_pty("sleep", "4321"):
        until("the command runs", sleeping, 5)
    until("the command is gone", lambda: not sleeping(), 5)


def test_the_engine_starts_a_container_with_a_hand_written_spec(server: Server) -> None:
    server.write(
        "/etc/cdi/hand.json",
        '{"cdiVersion": "0.5.0", "kind": "hand/made", "devices": [{"name": "k1", "containerEdits": {"deviceNodes":'
        ' [{"path": "/dev/nvidia0", "hostPath": "/dev/fake/nvidia3", "uid": 1001, "gid": 0, "fileMode": 384}]}}]}',
    )
    done = server.docker("run", "--rm", "--device", "hand/made=k1", "bb", "stat", "-c", "%u %a %t,%T", "/dev/nvidia0")
    assert done.stdout.split() == ["1001", "600", "1,3"]


def test_the_vendor_spec_names_every_card_and_slice_and_no_card_that_is_cut() -> None:
    cards = gpus.read_layout(DEFAULT_LAYOUT)
    spec = yaml.safe_load(gpus.spec_text(cards, gpus.Places()))
    names = [device["name"] for device in spec["devices"]]
    whole = [name for i, card in enumerate(cards) if card.slices is None for name in (str(i), card.uuid)]
    cut = [
        name
        for i, card in enumerate(cards)
        for j, part in enumerate(card.slices or ())
        for name in (f"{i}:{j}", part.uuid)
    ]
    assert names == [*whole, *cut, "all"]
    assert spec["kind"] == "nvidia.com/gpu"
    assert spec["containerEdits"]["env"][-1] == "NVIDIA_VISIBLE_DEVICES=void"


@pytest.mark.parametrize(
    ("device", "nodes"),
    [
        ("0", {"nvidia0"}),
        ("GPU-94f7b23d-c58e-4e60-a1d9-7b08e6f40003", {"nvidia3"}),
        ("4:2", {"nvidia4", "nvidia-cap561", "nvidia-cap562"}),
        ("MIG-1d0c7e94-5ab8-5f13-8e67-b4a2903c0403", {"nvidia4", "nvidia-cap570", "nvidia-cap571"}),
    ],
)
def test_a_container_gets_the_nodes_of_a_vendor_device(server: Server, device: str, nodes: set[str]) -> None:
    asks = "find /dev/nvidia* -type c; echo $NVIDIA_VISIBLE_DEVICES; cat /usr/lib/x86_64-linux-gnu/libcuda.so.*"
    out = server.docker("run", "--rm", "--device", f"nvidia.com/gpu={device}", "bb", "sh", "-c", asks).stdout
    found = {Path(line).name for line in out.splitlines() if line.startswith("/dev/")}
    assert found == nodes | set(gpus.CONTROL)
    assert "\nvoid\n" in out
    assert "stand-in for libcuda" in out


def test_the_driver_tells_minors_as_the_real_one_does(server: Server) -> None:
    proc = "/run/fake-nvidia/proc/driver/nvidia"
    assert "DeviceFileMinor: 561\n" in server.file(f"{proc}/capabilities/gpu4/mig/gi2/access")
    assert "DeviceFileMinor: 562\n" in server.file(f"{proc}/capabilities/gpu4/mig/gi2/ci0/access")
    assert "Device Minor: \t 3\n" in server.file(f"{proc}/gpus/0000:61:00.0/information")


def test_the_mock_driver_in_the_box_answers_what_the_test_sets(server: Server) -> None:
    asks = (
        "import ctypes; n = ctypes.CDLL('libnvidia-ml.so.1'); assert n.nvmlInit_v2() == 0; c = ctypes.c_uint();"
        "assert n.nvmlDeviceGetCount_v2(ctypes.byref(c)) == 0; print(c.value)"
    )
    env = {"LD_LIBRARY_PATH": "/usr/lib/fake-nvidia", "NVML_MOCK_STATE": "/host/nvml.state"}
    assert server.exec("python3", "-c", asks, env=env).stdout.strip() == "5"
    server.nvml.gpu(3).present = False
    try:
        assert server.exec("python3", "-c", asks, env=env).stdout.strip() == "4"
    finally:
        server.nvml.gpu(3).present = True


def test_the_engine_comes_back_from_sigkill_more_often_than_debian_would_let_it(server: Server) -> None:
    for _ in range(5):
        server.kill_dockerd()
    assert server.docker("run", "--rm", "bb", "echo", "alive").stdout == "alive\n"


def test_after_a_reboot_the_server_is_whole_again() -> None:
    with Server(install=False) as server:
        server.docker("create", "--name", "kept", "--device", "nvidia.com/gpu=1", "bb", "ls", "/dev/nvidia1")
        server.reboot()
        server.engine_up()
        assert server.docker("start", "--attach", "kept").stdout == "/dev/nvidia1\n"
