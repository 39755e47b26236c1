"""cdi-guard as runc calls it: what lets a start through, and everything that must not."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

KEY = "k1a2b3"
CONTAINER = "c0ffee" * 10 + "abcd"
OTHER = "deadbeef" * 8
GENERATION = "8f3a.17"


@dataclass
class Start:
    """One start as runc presents it; a test spoils one thing of it."""

    guard: Path
    grants: Path
    bundle: Path
    rootfs: Path
    arguments: list[str] = field(default_factory=lambda: [KEY, CONTAINER, GENERATION])
    state: bytes | None = None

    @property
    def grant(self) -> Path:
        return self.grants / KEY

    def give(self, *mounts: str, head: str = f"{CONTAINER} {GENERATION} 0,1:2") -> None:
        self.grant.write_text("".join(f"{line}\n" for line in (head, *mounts)))
        self.grant.chmod(0o600)

    def mounted(self, target: str) -> str:
        """Make a directory at the target and return its line in the grant."""
        there = self.rootfs / target.lstrip("/")
        there.mkdir(parents=True, exist_ok=True)
        return f"{there.stat().st_dev}:{there.stat().st_ino} {target}"

    def config(self, text: str) -> None:
        (self.bundle / "config.json").write_text(text)

    def run(self) -> tuple[int, str]:
        state = self.state
        if state is None:
            words = {"ociVersion": "1.2.0", "id": CONTAINER, "status": "creating", "pid": os.getpid()}
            state = json.dumps({**words, "bundle": str(self.bundle), "annotations": {"id": OTHER}}).encode()
        done = subprocess.run([self.guard, *self.arguments], input=state, capture_output=True, check=False, env={})
        assert done.stdout == b""
        return done.returncode, done.stderr.decode(errors="backslashreplace")

    def refused(self) -> str:
        """Run it; it must refuse with one printable line, which is returned without its front."""
        status, words = self.run()
        front = "ds01: cannot start: "
        assert (status, words.count("\n"), words.startswith(front)) == (1, 1, True), words
        assert words.rstrip("\n").isprintable()
        return words.removeprefix(front).rstrip("\n")

    def passes(self) -> bool:
        return self.run() == (0, "")


@pytest.fixture
def start(guard: Path, grants: Path, tmp_path: Path) -> Iterator[Start]:
    bundle, rootfs = tmp_path / "bundle", tmp_path / "rootfs"
    bundle.mkdir()
    rootfs.mkdir()
    made = Start(guard, grants, bundle, rootfs)
    made.config(json.dumps({"root": {"path": str(rootfs)}}))
    made.give()
    yield made
    made.grant.unlink(missing_ok=True)


# ── the permission ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_right_grant_passes(start: Start) -> None:
    assert start.passes()


def test_a_container_without_gpu_passes(start: Start) -> None:
    start.give(head=f"{CONTAINER} {GENERATION} -")
    assert start.passes()


def test_another_container_that_borrowed_the_name_is_refused(start: Start) -> None:
    start.state = json.dumps({"id": OTHER, "pid": os.getpid(), "bundle": str(start.bundle)}).encode()
    assert start.refused() == "this device name belongs to another container"


def test_a_grant_of_another_container_is_refused(start: Start) -> None:
    start.give(head=f"{OTHER} {GENERATION} 0")
    assert start.refused() == "its grant belongs to another container"


@pytest.mark.parametrize("generation", ["8f3a.18", "8f3a.16", "8f3a.1", "8f3a.177", "9f3a.17"])
def test_another_generation_is_refused(start: Start, generation: str) -> None:
    start.give(head=f"{CONTAINER} {generation} 0")
    assert start.refused().startswith("stale generation: ")


def test_without_a_grant_it_is_refused(start: Start) -> None:
    start.grant.unlink()
    assert start.refused() == "it holds no allocation now; container-start asks for one"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [KEY, CONTAINER],
        [KEY, CONTAINER, GENERATION, "more"],
        ["", CONTAINER, GENERATION],
        ["../grant/" + KEY, CONTAINER, GENERATION],
        ["..", CONTAINER, GENERATION],
        [KEY, CONTAINER, ""],
        [KEY, CONTAINER, "8f3a.17 0"],
        ["k" * 129, CONTAINER, GENERATION],
    ],
)
def test_called_in_another_way_it_refuses(start: Start, arguments: list[str]) -> None:
    start.arguments = arguments
    assert start.refused() == "the guard is called as cdi-guard KEY CONTAINER_ID GENERATION"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        CONTAINER.encode(),
        f"{CONTAINER} {GENERATION}".encode(),
        f"{CONTAINER} {GENERATION}\n".encode(),
        f"{CONTAINER} {GENERATION} \n".encode(),
        f"{CONTAINER} {GENERATION} 0".encode(),
        f"{CONTAINER} {GENERATION} 0 1\n".encode(),
        f"{CONTAINER}  {GENERATION} 0\n".encode(),
        f" {CONTAINER} {GENERATION} 0\n".encode(),
        f"{CONTAINER}\t{GENERATION}\t0\n".encode(),
        f"{CONTAINER} {GENERATION} 0\r\n".encode(),
        f"{CONTAINER} {GENERATION} 0\0\n".encode(),
        f"\n{CONTAINER} {GENERATION} 0\n".encode(),
        b"\0" * 4096,
        os.urandom(4096),
        f"{CONTAINER} {GENERATION} 0\n".encode() + b"\0" * 10,
        f"{CONTAINER} {GENERATION} 0\n1:2 /workspace".encode(),
        f"{CONTAINER} {GENERATION} 0\n".encode() + b"1:2 /workspace\n" * 40_000,
        f"{CONTAINER} {GENERATION} {'0,' * 200_000}0\n".encode(),
    ],
)
def test_a_torn_or_garbled_grant_is_refused(start: Start, content: bytes) -> None:
    start.grant.write_bytes(content)
    assert "grant cannot be read" in start.refused()


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "group-writable", "other's"])
def test_what_is_not_a_plain_file_of_roots_alone_is_no_grant(start: Start, tmp_path: Path, kind: str) -> None:
    good = tmp_path / "good"
    good.write_bytes(start.grant.read_bytes())
    match kind:
        case "group-writable":
            start.grant.chmod(0o660)
        case "other's":
            os.chown(start.grant, 65534, 65534)
        case _:
            start.grant.unlink()
    match kind:
        case "directory":
            start.grant.mkdir()
        case "symlink":
            start.grant.symlink_to(good)
        case "fifo":
            os.mkfifo(start.grant)
        case _:
            pass
    try:
        assert start.refused().startswith("its grant ")
    finally:
        if kind == "directory":
            start.grant.rmdir()


# ── the mounts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_directories_pass(start: Start) -> None:
    start.give(start.mounted("/workspace"), start.mounted("/data/my sets"), start.mounted("/models"))
    assert start.passes()


def test_another_directory_is_refused_by_name(start: Start) -> None:
    start.give(start.mounted("/data"), start.mounted("/workspace"))
    (start.rootfs / "workspace").rename(start.rootfs / "moved")
    (start.rootfs / "workspace").mkdir()
    assert start.refused().startswith("/workspace is not the directory that was checked")


def test_a_missing_directory_is_refused(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    (start.rootfs / "workspace").rmdir()
    assert start.refused() == "/workspace is not there"


def test_a_directory_swapped_for_a_symlink_to_another_one_is_refused(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    (start.rootfs / "workspace").rename(start.rootfs / "moved")
    (start.rootfs / "etc").mkdir()
    (start.rootfs / "workspace").symlink_to("etc")
    assert start.refused().startswith("/workspace is not the directory that was checked")


def test_another_device_with_the_same_inode_is_refused(start: Start) -> None:
    dev, _, rest = start.mounted("/workspace").partition(":")
    start.give(f"{int(dev) + 1}:{rest}")
    assert start.refused().startswith("/workspace is not the directory that was checked")


@pytest.mark.parametrize("where", ["/srv/real", "srv/real", "../../../srv/real"])
def test_a_symlink_of_the_image_is_followed_inside_the_image_only(start: Start, where: str) -> None:
    line = start.mounted("/srv/real")
    (start.rootfs / "workspace").symlink_to(where)
    start.give(line.replace("/srv/real", "/workspace"))
    assert start.passes()


def test_a_symlink_of_the_image_does_not_lead_out_of_it(start: Start, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (start.rootfs / "workspace").symlink_to(outside)
    start.give(f"{outside.stat().st_dev}:{outside.stat().st_ino} /workspace")
    assert start.refused() == "/workspace is not there"


def test_a_magic_link_of_proc_is_not_followed(start: Start) -> None:
    start.config(json.dumps({"root": {"path": "/"}}))
    here = Path("/").stat()
    start.give(f"{here.st_dev}:{here.st_ino} /proc/self/root")
    assert start.refused() == "/proc/self/root is not there"


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ",
        "1:2",
        "1:2 ",
        "1:2 workspace",
        "1:2  /workspace",
        "1 2 /workspace",
        ":2 /workspace",
        "1: /workspace",
        "-1:2 /workspace",
        "0x1:2 /workspace",
        "01:2 /workspace",
        "1:2:3 /workspace",
        "8:1:2 /workspace",
        f"1:{2**64} /workspace",
        f"{2**64 + 1}:2 /workspace",
        "1:2 /" + "w" * 4096,
    ],
)
def test_a_mount_line_that_cannot_be_read_is_refused(start: Start, line: str) -> None:
    start.give(start.mounted("/workspace"), line)
    assert start.refused().startswith("a mount in its grant cannot be read")


def test_a_hostile_target_cannot_write_on_the_terminal(start: Start) -> None:
    start.give("1:2 /\x1b[31mred\x7f")
    assert start.refused() == "/?[31mred? is not there"


def test_the_longest_target_still_gives_a_reason(start: Start) -> None:
    start.give("1:2 /" + "/".join(["w" * 200] * 20))
    assert start.refused().endswith(" is not there")


# ── the bundle ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_relative_root_lies_in_the_bundle(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    start.rootfs.rename(start.bundle / "rootfs")
    start.config('{"root": {"readonly": false, "path": "rootfs"}}')
    assert start.passes()


@pytest.mark.parametrize(
    "text",
    [
        '{{"process": {{"root": {{"path": "/wrong"}}, "env": ["root", "path"]}}, "root": {{"path": {path}}}}}',
        '{{"annotations": {{"root": "\\"root\\": {{\\"path\\": \\"/wrong\\"}}"}}, "root": {{"path": {path}}}}}',
        '{{"a": [[[{{"root": {{"path": "/wrong"}}}}]]], "root": {{"x": {{"path": "/wrong"}}, "path": {path}}}}}',
        '{{"root": {{"path": {path}}}, "mounts": [{{"path": "/wrong"}}], "n": [1.5e+7, true, null, "\\ud800"]}}',
        ' \n{{ "r\\u006fot" :\t{{ "p\\u0061th" : {path} }} }}\r\n',
    ],
)
def test_the_root_is_found_by_structure_and_not_by_words(start: Start, text: str) -> None:
    start.give(start.mounted("/workspace"))
    start.config(text.format(path=json.dumps(str(start.rootfs))))
    assert start.passes()


def test_an_escaped_root_path_is_decoded(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    named = start.rootfs.with_name('röot "\U0001f600\\')
    start.rootfs.rename(named)
    start.config(json.dumps({"root": {"path": str(named)}}))
    assert start.passes()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"root": null}',
        '{"root": "/"}',
        '{"root": {}}',
        '{"root": {"path": ""}}',
        '{"root": {"path": 1}}',
        '{"root": {"path": "/\\u0000"}}',
        '{"root": {"path": "/\\ud800"}}',
        '{"root": {"path": "/"}',
        '{"root": {"path": "/',
        '{"root": {"path": "/"}} x',
        '{"root": {"path": "/"},}',
        '{"root": {"path": "/"}, "root": {"path": "/"}}',
        '{"root": {"path": "/", "path": "/"}}',
        '{"Root": {"path": "/"}}',
        '{"x": {"root": {"path": "/"}}}',
        '{"x": ' + "[" * 100_000 + "]" * 100_000 + ', "root": {"path": "/"}}',
        '{"x": ' + '{"a":' * 100_000,
        '{"root": {"path": "/' + "a" * 5000 + '"}}',
        "\ufeff" + '{"root": {"path": "/"}}',
    ],
)
def test_a_config_that_does_not_say_where_the_root_is_refuses(start: Start, text: str) -> None:
    start.give(start.mounted("/workspace"))
    start.config(text)
    assert start.refused() == "the bundle's config.json names no root.path"


def test_a_large_config_is_read_and_a_huge_one_refused(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    root = {"root": {"path": str(start.rootfs)}}
    start.config(json.dumps({"env": "x" * 2_000_000, **root}))
    assert start.passes()
    start.config(json.dumps({"env": "x" * 5_000_000, **root}))
    assert start.refused() == "the bundle's config.json cannot be read"


def test_without_a_config_or_a_root_it_is_refused(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    start.config('{"root": {"path": "/nonexistent/root"}}')
    assert start.refused() == "the container's root directory cannot be opened"
    (start.bundle / "config.json").unlink()
    assert start.refused() == "the bundle's config.json cannot be read"


# ── the engine's state ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "garbage",
        f'{{"id": "{CONTAINER}", "pid": 1}}',
        f'{{"id": "{CONTAINER}", "bundle": "/b"}}',
        '{"pid": 1, "bundle": "/b"}',
        f'{{"id": "{CONTAINER}", "pid": 0, "bundle": "/b"}}',
        f'{{"id": "{CONTAINER}", "pid": -1, "bundle": "/b"}}',
        f'{{"id": "{CONTAINER}", "pid": 1.0, "bundle": "/b"}}',
        f'{{"id": "{CONTAINER}", "pid": "1", "bundle": "/b"}}',
        f'{{"id": "{CONTAINER}", "pid": 4294967297, "bundle": "/b"}}',
        f'{{"id": "{CONTAINER}", "pid": 1, "bundle": "b"}}',
        f'{{"id": "{CONTAINER}", "pid": 1, "bundle": "/b"',
        f'{{"id": "{CONTAINER}", "pid": 1, "bundle": "/b"}}{{}}',
        f'{{"id": "{OTHER}", "id": "{CONTAINER}", "pid": 1, "bundle": "/b"}}',
        f'{{"id": ["{CONTAINER}"], "pid": 1, "bundle": "/b"}}',
        f'{{"state": {{"id": "{CONTAINER}", "pid": 1, "bundle": "/b"}}}}',
        '{"id": "' + "a" * 200 + '", "pid": 1, "bundle": "/b"}',
    ],
)
def test_a_state_that_cannot_be_read_refuses(start: Start, text: str) -> None:
    start.state = text.encode()
    assert start.refused() == "the engine's description of this start cannot be read"


def test_an_endless_state_refuses(start: Start) -> None:
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run([start.guard, *start.arguments], stdin=endless, capture_output=True, check=False)
    assert done.returncode == 1


def test_a_process_that_is_gone_refuses(start: Start) -> None:
    start.give(start.mounted("/workspace"))
    gone = subprocess.Popen(["true"])
    gone.wait()
    start.state = json.dumps({"id": CONTAINER, "pid": gone.pid, "bundle": str(start.bundle)}).encode()
    assert start.refused() == "the container's process cannot be looked at"


def test_the_mounts_are_looked_at_where_the_process_sees_them(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "home"
    source.mkdir()
    start.mounted("/workspace")
    script = f"mount --bind {source} {start.rootfs}/workspace && echo up && exec sleep 60"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        start.state = json.dumps({"id": CONTAINER, "pid": process.pid, "bundle": str(start.bundle)}).encode()

        start.give(f"{source.stat().st_dev}:{source.stat().st_ino} /workspace")
        passed = start.passes()
        start.give(start.mounted("/workspace"))
        words = start.refused()
        process.kill()
    assert passed
    assert words.startswith("/workspace is not the directory that was checked")


def test_it_takes_less_than_2_ms(start: Start) -> None:
    start.give(*(start.mounted(f"/data/{n}") for n in range(8)))
    start.config(json.dumps({"env": ["NAME=" + "x" * 100] * 400, "root": {"path": str(start.rootfs)}}))
    state = json.dumps({"id": CONTAINER, "pid": os.getpid(), "bundle": str(start.bundle)}).encode()
    assert start.passes()

    guard = fastest([str(start.guard), *start.arguments], state)

    assert guard - fastest(["/bin/true"], state) < 0.002


def fastest(command: list[str], text: bytes) -> float:
    """The least seconds of thirty runs: what is above it is the machine's other work."""

    def once() -> float:
        begin = time.perf_counter()
        subprocess.run(command, input=text, capture_output=True, check=False, env={})
        return time.perf_counter() - begin

    return min(once() for _ in range(30))
