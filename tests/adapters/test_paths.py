"""Users' paths with real users: what a user may open is mounted, and what he may not, or what hangs, is refused."""

import asyncio
import contextlib
import os
import pwd
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ds01d.adapters.paths import Kind, Paths
from ds01d.model.actor import Owner
from ds01d.model.container import Mount
from ds01d.model.ids import Uid
from ds01d.model.operation import Failure

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def homes() -> Iterator[dict[str, Path]]:
    """Two real accounts; `ds01shared` is a group of the first one only."""
    base = Path("/var/tmp") / f"ds01-paths-{os.getpid()}"
    base.mkdir()
    base.chmod(0o755)
    names = {"alice": f"alice{os.getpid()}", "bob": f"bob{os.getpid()}"}
    shared = f"shared{os.getpid()}"
    subprocess.run(["groupadd", shared], check=True)
    for word, name in names.items():
        groups = ["-G", shared] if word == "alice" else []
        subprocess.run(
            ["useradd", "-m", "-b", str(base), "-s", "/bin/sh", "-K", "HOME_MODE=0700", *groups, name], check=True
        )
    project = base / "project"
    project.mkdir()
    project.chmod(0o770)
    subprocess.run(["chgrp", shared, str(project)], check=True)
    try:
        yield {word: base / name for word, name in names.items()} | {"project": project}
    finally:
        for name in names.values():
            subprocess.run(["userdel", "-r", name], check=False, capture_output=True)
        subprocess.run(["groupdel", shared], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", str(base)], check=True)


def owner(home: Path) -> Owner:
    entry = pwd.getpwnam(home.name)
    return Owner(uid=Uid(entry.pw_uid), gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)


def resolve(home: Path, path: object, kind: Kind = "workspace", *, create: bool = False) -> Mount | Failure:
    return asyncio.run(Paths(deadline_s=5.0).resolve(owner(home), str(path), kind, create=create))


def refused(found: Mount | Failure) -> str:
    assert isinstance(found, Failure), found
    return f"{found.kind}: {found.message}"


def own(path: Path, home: Path) -> Path:
    entry = pwd.getpwnam(home.name)
    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    return path


def test_a_missing_workspace_is_made_as_its_user_and_is_his_alone(homes: dict[str, Path]) -> None:
    found = resolve(homes["alice"], "~/workspace", create=True)

    made = (homes["alice"] / "workspace").stat()
    assert found == Mount(
        source=str(homes["alice"] / "workspace"), target="/workspace", device=made.st_dev, inode=made.st_ino
    )
    assert (made.st_uid, made.st_mode & 0o777) == (owner(homes["alice"]).uid, 0o700)


def test_a_missing_directory_that_somebody_wrote_is_not_made(homes: dict[str, Path]) -> None:
    found = resolve(homes["alice"], "~/wrokspace")

    assert "invalid: cannot use ~/wrokspace as workspace: there is no such directory" in refused(found)
    assert not (homes["alice"] / "wrokspace").exists()


def test_another_users_directory_is_denied_although_the_daemon_could_open_it(homes: dict[str, Path]) -> None:
    (homes["bob"] / "thesis").mkdir()
    own(homes["bob"] / "thesis", homes["bob"])

    found = resolve(homes["alice"], homes["bob"] / "thesis", "data")

    assert refused(found).endswith("as data: you may not open it")
    assert refused(found).startswith("denied:")


def test_a_directory_open_to_a_group_of_his_is_his_to_mount(homes: dict[str, Path]) -> None:
    alice = resolve(homes["alice"], homes["project"], "data")
    bob = resolve(homes["bob"], homes["project"], "data")

    assert isinstance(alice, Mount)
    assert alice.target == "/data"
    assert refused(bob).startswith("denied:")


def test_a_symlink_is_resolved_once_and_what_it_meant_is_mounted(homes: dict[str, Path]) -> None:
    (homes["alice"] / "real").mkdir()
    own(homes["alice"] / "real", homes["alice"])
    (homes["alice"] / "link").symlink_to("real")

    found = resolve(homes["alice"], "~/link")

    assert isinstance(found, Mount)
    assert found.source == str(homes["alice"] / "real")


@pytest.mark.parametrize("escape", ["/usr", "../../../../usr"])
def test_a_workspace_does_not_lead_out_of_the_home_by_a_symlink(homes: dict[str, Path], escape: str) -> None:
    link = homes["alice"] / "out"
    link.unlink(missing_ok=True)
    link.symlink_to(escape if escape.startswith("/") else f"{homes['alice']}/{escape}")

    assert "neither in your home directory nor yours" in refused(resolve(homes["alice"], "~/out"))


def test_a_workspace_does_not_lead_out_of_the_home_by_dots(homes: dict[str, Path]) -> None:
    assert "neither in your home directory nor yours" in refused(resolve(homes["alice"], "~/../../../../usr"))


@pytest.mark.parametrize("place", ["/", "/proc/self", "/etc", "/dev/shm", "/sys"])
def test_the_machines_own_directories_are_no_data(homes: dict[str, Path], place: str) -> None:
    assert "the machine's own" in refused(resolve(homes["alice"], place, "data"))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def file(path: Path) -> None:
    path.write_text("x")


def circle(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (fifo, "it is no directory"),
        (file, "it is no directory"),
        (circle, "go round"),
        (dangling, "there is no such directory"),
    ],
)
def test_what_is_no_directory_is_refused_at_once_and_in_words(
    homes: dict[str, Path], make: Callable[[Path], None], words: str
) -> None:
    path = homes["alice"] / "odd"
    path.unlink(missing_ok=True)
    make(path)
    begun = time.monotonic()

    found = resolve(homes["alice"], path, create=make is dangling)

    assert words in refused(found).replace("lead round in a circle", "go round")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("path", ["workspace", "./x", "", "~bob/x", "/home/a\nb", "/home/a\x00b", "/x" * 600])
def test_a_path_that_cannot_be_meant_never_reaches_a_child(homes: dict[str, Path], path: str) -> None:
    assert "write it from `/` or from `~/` on" in refused(resolve(homes["alice"], path))


@pytest.mark.parametrize(("name", "words"), [("a:b", "a colon"), ("a\nb", "a colon or an unprintable letter")])
def test_a_name_that_the_engine_could_read_otherwise_is_refused_even_behind_a_link(
    homes: dict[str, Path], name: str, words: str
) -> None:
    odd = homes["alice"] / name
    odd.mkdir(exist_ok=True)
    own(odd, homes["alice"])
    link = homes["alice"] / "plain"
    link.unlink(missing_ok=True)
    link.symlink_to(odd)

    assert words in refused(resolve(homes["alice"], link))


def test_a_name_that_is_no_text_is_refused_even_behind_a_link(homes: dict[str, Path]) -> None:
    odd = os.fsencode(homes["alice"]) + b"/\xff"
    os.mkdir(odd)  # noqa: PTH102 - pathlib has no bytes
    os.chmod(odd, 0o777)  # noqa: PTH101, S103 - the same; it has to be open to its user
    link = os.fsencode(homes["alice"]) + b"/text"
    os.symlink(odd, link)  # noqa: PTH211 - the same

    assert "not UTF-8" in refused(resolve(homes["alice"], "~/text"))


FROZEN = """
import os, sys
# A file system that never answers, without its own kernel module: FUSE that is mounted and not served.
import ctypes
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"frozen", sys.argv[1].encode(), b"fuse.frozen", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def frozen(homes: dict[str, Path]) -> Iterator[Path]:
    """A directory whose file system never answers."""
    place = homes["alice"].parent / "frozen"
    place.mkdir()
    server = subprocess.Popen(
        ["python3", "-c", FROZEN, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        if server.stdout.readline() != "mounted\n":
            pytest.skip("needs /dev/fuse")
        yield place
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)
        place.rmdir()


async def test_a_dead_file_server_holds_up_its_own_user_only_and_not_for_long(
    homes: dict[str, Path], frozen: Path
) -> None:
    paths = Paths(deadline_s=1.0)
    begun = time.monotonic()

    hanging, other = await asyncio.gather(
        paths.resolve(owner(homes["alice"]), str(frozen / "data"), "data", create=False),
        paths.resolve(owner(homes["bob"]), "~", "workspace", create=False),
    )

    assert "its file system does not answer" in refused(hanging)
    assert isinstance(other, Mount)
    assert time.monotonic() - begun < 4


async def test_one_user_cannot_start_children_without_end(homes: dict[str, Path]) -> None:
    paths = Paths(deadline_s=5.0)

    found = await asyncio.gather(
        *(paths.resolve(owner(homes["alice"]), "~", "workspace", create=False) for _ in range(20))
    )

    assert any("too many paths" in refused(no) for no in found if isinstance(no, Failure))
    assert sum(isinstance(yes, Mount) for yes in found) >= 4


async def test_a_class_that_creates_in_the_same_second_is_served_whole(homes: dict[str, Path]) -> None:
    paths = Paths()
    several = [Owner(uid=Uid(59_000 + n), gid=59_000 + n, name=f"u{n}", home=str(homes["bob"])) for n in range(40)]

    found = await asyncio.gather(*(paths.resolve(one, "/usr", "data", create=False) for one in several))

    assert [no for no in found if isinstance(no, Failure)] == []


def children(of: int) -> set[int]:
    """The processes that look at paths for this one."""
    found = set()
    for thread in Path(f"/proc/{of}/task").iterdir():
        with contextlib.suppress(OSError):  # threads and children end
            pids = map(int, (thread / "children").read_text().split())
            found |= {pid for pid in pids if b"paths_child" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    return found


def waiting(of: int) -> int:
    """The one child, once it is there."""
    deadline = time.monotonic() + 30
    while not (found := children(of)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found.pop()


def none_waits(of: int) -> None:
    """Return when there is none; one that was just being started ends a moment later."""
    deadline = time.monotonic() + 30
    while children(of):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_no_child_is_left_whenever_nobody_wants_one_any_more() -> None:
    for n in range(20):
        seeing_to_it = asyncio.create_task(Paths().run())
        await asyncio.sleep(n / 1000)
        seeing_to_it.cancel()
        await asyncio.wait({seeing_to_it})
    await asyncio.to_thread(none_waits, os.getpid())


async def test_a_child_waits_for_the_next_question(homes: dict[str, Path]) -> None:
    paths, alice = Paths(), owner(homes["alice"])
    seeing_to_it = asyncio.create_task(paths.run())
    try:
        first = await asyncio.to_thread(waiting, os.getpid())
        async with asyncio.timeout(30):
            while first in children(os.getpid()):  # a question in the moment of its start has a child of its own
                assert isinstance(await paths.resolve(alice, "~", "workspace", create=False), Mount)

        second = await asyncio.to_thread(waiting, os.getpid())
        os.kill(second, signal.SIGKILL)
        for _ in range(2):  # one that was killed is passed over, and there is no other yet
            assert isinstance(await paths.resolve(alice, "~", "workspace", create=False), Mount)
        await asyncio.to_thread(waiting, os.getpid())
    finally:
        seeing_to_it.cancel()
        await asyncio.wait({seeing_to_it})
    await asyncio.to_thread(none_waits, os.getpid())


def test_a_child_that_waits_ends_with_a_daemon_that_is_killed() -> None:
    program = "import asyncio; from ds01d.adapters.paths import Paths; asyncio.run(Paths().run())"
    with subprocess.Popen([sys.executable, "-c", program]) as daemon:
        try:
            held = os.pidfd_open(waiting(daemon.pid))
        finally:
            daemon.kill()
    assert select.select([held], [], [], 10)[0]
    os.close(held)


@pytest.mark.long
async def test_children_that_can_neither_answer_nor_be_killed_stop_nobody_else(homes: dict[str, Path]) -> None:
    """As in a file server that is gone: the thread comes back from none of them."""
    for_ever = threading.Event()

    def hang(_question: bytes, _timeout_s: float) -> bytes:
        if b"/dead" in _question:
            for_ever.wait()
        return b"path=/srv/alive\0device=1\0inode=2\0owner=0\0"

    paths = Paths(deadline_s=0.1, talk=hang)
    bob = owner(homes["bob"])
    users = [Owner(uid=Uid(59_000 + n), gid=100, name=f"u{n}", home="/") for n in range(10)]
    asking = [asyncio.create_task(paths.resolve(one, "/dead", "data", create=False)) for one in users for _ in range(6)]
    await asyncio.sleep(0)
    begun = time.monotonic()

    try:
        alive = await paths.resolve(bob, "/srv/alive", "data", create=False)
        took_s = time.monotonic() - begun
        said = [refused(found) for found in await asyncio.gather(*asking)]
        later = await paths.resolve(users[0], "/srv/alive", "data", create=False)
    finally:
        for_ever.set()

    assert isinstance(alive, Mount)
    assert took_s < 2
    assert sum("does not answer" in words for words in said) == 40
    assert sum("too many paths" in words for words in said) == 20
    assert refused(later).startswith("too_many: ")  # try again, says the exit code too: the path may be a good one


async def test_a_user_whose_file_server_came_back_may_go_on(homes: dict[str, Path]) -> None:
    back = threading.Event()

    def hang(_question: bytes, _timeout_s: float) -> bytes:
        back.wait()
        return b"path=/srv/alive\0device=1\0inode=2\0owner=0\0"

    paths, alice = Paths(deadline_s=0.1, talk=hang), owner(homes["alice"])
    await asyncio.gather(*(paths.resolve(alice, "/srv/alive", "data", create=False) for _ in range(4)))
    blocked = await paths.resolve(alice, "/srv/alive", "data", create=False)

    back.set()
    await asyncio.sleep(0.1)

    assert "too many paths" in refused(blocked)
    assert isinstance(await paths.resolve(alice, "/srv/alive", "data", create=False), Mount)


def compare(mount: Mount) -> bool:
    """Whether it is the same directory, still under the same device number."""
    return asyncio.run(Paths().device(mount)) == mount.device


def test_a_directory_whose_file_system_was_mounted_anew_has_another_device_number(homes: dict[str, Path]) -> None:
    found = resolve(homes["alice"], "~")
    assert isinstance(found, Mount)
    before = Mount(source=found.source, target=found.target, device=found.device + 77, inode=found.inode)

    assert asyncio.run(Paths().device(before)) == found.device


def test_a_directory_that_was_put_in_the_place_of_the_first_is_not_the_same(homes: dict[str, Path]) -> None:
    place = homes["alice"] / "kept"
    place.mkdir()
    own(place, homes["alice"])
    found = resolve(homes["alice"], place)
    assert isinstance(found, Mount)

    before = compare(found)
    place.rename(homes["alice"] / "aside")
    gone = compare(found)
    place.symlink_to("aside")
    linked = compare(found)
    place.unlink()
    place.mkdir()
    replaced = compare(found)
    place.rmdir()
    (homes["alice"] / "aside").rename(place)

    assert (before, gone, linked, replaced, compare(found)) == (True, False, False, False, True)


def test_a_link_on_the_way_is_not_followed_although_it_leads_to_the_same(homes: dict[str, Path]) -> None:
    deep = homes["alice"] / "outer" / "inner"
    deep.mkdir(parents=True)
    own(deep.parent, homes["alice"])
    own(deep, homes["alice"])
    found = resolve(homes["alice"], deep)
    assert isinstance(found, Mount)

    deep.parent.rename(homes["alice"] / "moved")
    deep.parent.symlink_to("moved")

    assert compare(found) is False


async def test_of_a_directory_whose_file_server_is_dead_nothing_is_concluded(frozen: Path) -> None:
    paths = Paths(deadline_s=1.0)

    assert await paths.device(Mount(source=str(frozen / "data"), target="/data", device=1, inode=1)) is None


def test_the_child_cannot_be_traced_by_the_user_that_it_became(homes: dict[str, Path]) -> None:
    """Else he could make it name a directory that only root can reach."""
    child = Path(__file__).parents[2] / "ds01d" / "adapters" / "paths_child.py"
    body = child.read_text().replace(
        "    os.umask(0o077)\n",
        "    sys.stdout.write(open('/proc/self/status').read())\n"
        "    print(os.stat('/proc/self/mem').st_uid)\n"
        "    sys.exit()\n",
    )
    asked = "uid=%d\0gid=%d\0name=%s\0home=/\0path=/\0create=False\0"
    who = owner(homes["alice"])

    done = subprocess.run(
        ["python3", "-I", "-S", "-c", body],
        input=asked % (who.uid, who.gid, who.name),
        capture_output=True,
        text=True,
        check=True,
    )

    assert f"Uid:\t{who.uid}\t{who.uid}\t{who.uid}\t{who.uid}" in done.stdout
    assert done.stdout.splitlines()[-1] == "0"
