"""Hostile callers at the installed product: who may do what, whose pid proves nothing, and floods that delay nobody."""

import contextlib
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ds01d.api.methods import METHODS
from tests.system.house import USERS, House, house
from tests.testbed.server import DAEMON, until

pytestmark = pytest.mark.system

INSIDE: Final = Path(__file__).resolve().parents[1] / "hostile" / "inside.py"
NOBODY: Final = 7777
#: In the box; everybody may read it.
PROGRAM: Final = "/host/hostile/inside.py"
#: The box's own Python, lent to a container of a bare image.
LENT: Final = ("-v/usr:/usr:ro", "-v/usr/lib:/lib:ro", "-v/usr/lib64:/lib64:ro", "-v/etc:/etc:ro", "-v/host:/host:ro")
HEALTH: Final = ("curl", "-s", "--max-time", "5", "--unix-socket", "/run/ds01/ds01d.sock", "http://x/healthz")
GROWTH_KIB: Final = 24 * 1024


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    with house() as made:
        (made.server.shared / "hostile").mkdir()
        (made.server.shared / "hostile" / "inside.py").write_text(INSIDE.read_text())
        made.server.exec("chmod", "-R", "a+rX", "/host/hostile")
        made.started("alice", "warm")
        made.run("alice", "container-exec", "warm", "--", "true")
        _storm(made, seconds=3)
        made.clear()
        before = figures(made)
        yield made
        made.clear()
        _same_as(before, made)


def figures(home: House) -> dict[str, int]:
    """The daemon's memory and descriptors."""
    pid = home.server.main_pid(DAEMON)
    rss = home.server.exec("sh", "-c", f"grep VmRSS /proc/{pid}/status | tr -dc 0-9").stdout
    return {"rss_kib": int(rss), "descriptors": len(descriptors(home)), "pid": pid}


def descriptors(home: House) -> list[str]:
    """What the daemon has open, but for its connections to the engine, which it keeps for its next questions."""
    pid = home.server.main_pid(DAEMON)
    peers = home.server.exec("ss", "-xpn", check=False).stdout
    # One that is closed while it is listed has no name any more.
    listed = home.server.exec("ls", "-l", f"/proc/{pid}/fd", check=False).stdout.splitlines()[1:]
    found = [line.partition(" -> ")[2] for line in listed if " -> " in line]
    to_engine = set(re.findall(r"(\d+)\s+\S*docker\.sock", peers)) | set(
        re.findall(r"docker\.sock \d+\s+\* (\d+)", peers)
    )
    return sorted(f for f in found if f"{f[8:-1]}" not in to_engine)


def _same_as(before: dict[str, int], home: House) -> None:
    """After everything in this file the daemon is as it was: the same process, no more descriptors, no more memory."""
    try:
        until("descriptors are given back", lambda: len(descriptors(home)) <= before["descriptors"], 40)
        # What was freed goes back to the machine once a minute.
        until("memory is given back", lambda: figures(home)["rss_kib"] < before["rss_kib"] + GROWTH_KIB, 65)
    except TimeoutError as error:
        error.add_note(f"{before}\n{figures(home)}\n{descriptors(home)}")
        raise
    after = figures(home)
    print(f"the daemon before all attacks {before}, after them {after}")
    assert after["pid"] == before["pid"]
    journal = home.server.journal()
    assert "Traceback" not in journal, journal[journal.index("Traceback") - 500 :][:3000]
    assert "rpc.failed" not in journal


def deed(home: House, what: str, uid: int, *arguments: str, given: str = "", timeout: float = 60) -> Any:  # noqa: ANN401  # JSON
    """Something of `inside.py`; what it printed."""
    done = home.server.exec("python3", PROGRAM, what, str(uid), *arguments, input=given, timeout=timeout)
    return json.loads(done.stdout)


@contextmanager
def doing(home: House, what: str, uid: int, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The same beside something else."""
    process = home.server.popen("python3", PROGRAM, what, str(uid), *arguments)
    try:
        yield process
    finally:
        out, err = process.communicate(timeout=60)
        print(f"{what} {shlex.join(arguments)} by {uid}: {out.decode().strip()[:200]} {err.decode()[-300:]}")


@contextmanager
def held(home: House, what: str, uid: int, number: int) -> Iterator[int]:
    """Connections that are kept open meanwhile; how many there are."""
    with doing(home, "hold", uid, what, str(number)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def _storm(home: House, seconds: int) -> None:
    """One of each: what counts is that all the others do not add to it."""
    for what in ("health", "status", "garbage", "twice", "batch", "events"):
        deed(home, "flood", USERS["bob"], what, str(seconds / 6), "64")
    # Answers that nobody takes are the most that the daemon ever has to keep: its memory has this size from now on.
    with contextlib.ExitStack() as others:
        for uid in (USERS["bob"], USERS["carol"], 7001, 7002, 7003, 7004):
            others.enter_context(held(home, "unread", uid, 70))


# ── who may do what ──────────────────────────────────────────────────────────────────────────────────────────────────


def calls(home: House, *, user: str | None) -> list[tuple[str, dict[str, object]]]:
    """Every method about alice's container; nothing is changed but for a shell that nobody fetches."""
    whose: dict[str, object] = {} if user is None else {"user": user}
    operations = home.rpc("alice", "operation.list")["result"]["operations"]
    shell = home.rpc("alice", "exec.start", name="thesis", argv=["sleep", "60"])["result"]["exec"]
    own = {"name": "thesis", **whose}
    special: dict[str, dict[str, object]] = {
        "container.create": {"name": "other", "image": "bb", "dry_run": True, **whose},
        "container.thaw": own,
        "container.left": own,
        "container.why": own,
        "container.list": whose,
        "operation.list": whose,
        "allocation.list": whose,
        "image.list": whose,
        "exec.start": {**own, "argv": ["true"]},
        "exec.resize": {"exec": shell, "rows": 10, "cols": 10},
        "exec.result": {"exec": shell},
        "operation.get": {"id": operations[0]["id"]},
        "operation.wait": {"id": operations[0]["id"], "timeout_s": 0},
        "system.story": {"thing": "thesis", **whose},
    }
    changing = {f"container.{verb}": {**own, "dry_run": True} for verb in ("start", "stop", "remove", "release")}
    return [(m.name, (special | changing).get(m.name, {})) for m in METHODS]


ANYBODYS: Final = {"gpu.list", "system.status", "system.version", "system.events", "rpc.discover"}
OPERATORS: Final = {"container.release", "container.thaw"}
BY_ID: Final = {"system.story", "exec.resize", "exec.result", "operation.get", "operation.wait"}


@pytest.fixture
def thesis(home: House) -> House:
    """Alice's runs, and there is nothing else: made anew only where the test before left it otherwise."""
    there = [(c["name"], c["phase"]) for c in home.picture().containers.values()]
    if there != [("thesis", "running")]:
        home.clear()
        home.started("alice", "thesis")
    return home


def came_of(home: House, uid: int, *, user: str | None) -> dict[str, str]:
    asked = calls(home, user=user)
    kinds = deed(home, "ask", uid, given=json.dumps(asked))
    return {name: kind for (name, _), kind in zip(asked, kinds, strict=True)}


def test_an_owner_may_do_everything_with_his_own_but_what_operators_do(thesis: House) -> None:
    came = came_of(thesis, USERS["alice"], user=None)
    assert {m for m, kind in came.items() if kind == "denied"} == OPERATORS
    assert {m for m, kind in came.items() if kind not in {"ok", "denied"}} <= {"container.remove"}, came


def test_another_user_is_denied_what_he_names_and_finds_nothing_where_he_does_not(thesis: House) -> None:
    named = came_of(thesis, USERS["bob"], user="alice")
    assert {m for m, kind in named.items() if kind == "ok"} == ANYBODYS
    assert {m for m, kind in named.items() if kind == "not_found"} == BY_ID
    assert {kind for m, kind in named.items() if m not in ANYBODYS | BY_ID} == {"denied"}

    unnamed = came_of(thesis, USERS["bob"], user=None)
    found = {m for m, kind in unnamed.items() if kind == "ok"}
    listings = {"container.list", "operation.list", "allocation.list", "image.list"}
    assert found == ANYBODYS | listings | {"container.create"}
    assert {m for m, kind in unnamed.items() if kind == "denied"} == OPERATORS


@pytest.mark.parametrize("uid", [0, USERS["dana"]])
def test_root_and_operators_may_do_everything_for_whom_they_name(thesis: House, uid: int) -> None:
    came = came_of(thesis, uid, user="alice")
    odd = {m: kind for m, kind in came.items() if kind != "ok"}
    assert odd.keys() <= {"container.remove", "container.thaw", "container.release"}, odd
    assert not set(odd.values()) & {"denied", "not_found", "internal"}, odd


def test_a_uid_without_an_account_is_refused_everything(thesis: House) -> None:
    assert set(came_of(thesis, NOBODY, user="alice").values()) == {"denied"}


@pytest.mark.parametrize("pid", [(), ("--pid=host",), ("--pid=host", "--userns=host", "--ipc=host", "--net=host")])
def test_root_of_a_container_is_nobody_and_an_operator_in_one_is_an_ordinary_user(
    thesis: House, pid: tuple[str, ...]
) -> None:
    asked = calls(thesis, user="alice")
    for uid, allowed in ((0, set[str]()), (USERS["dana"], ANYBODYS)):
        done = thesis.server.exec(
            *("docker", "run", "--rm", "-i", *pid, *LENT, "-v/run/ds01:/run/ds01", "bb"),
            *("/usr/bin/python3", PROGRAM, "ask", str(uid)),
            input=json.dumps(asked),
        )
        came = {name: kind for (name, _), kind in zip(asked, json.loads(done.stdout), strict=True)}
        assert {m for m, kind in came.items() if kind == "ok"} == allowed, came
        assert set(came.values()) <= {"ok", "denied", "not_found"}, came


@pytest.mark.parametrize("again", ["gone", "again"])
def test_who_is_gone_after_calling_is_not_taken_for_root_even_when_root_has_his_pid_now(
    thesis: House, again: str
) -> None:
    remove = json.dumps(["container.remove", {"name": "thesis", "user": "alice", "force": True}])
    said = deed(thesis, "vanish", 0, str(thesis.server.main_pid(DAEMON)), remove, again)
    assert said["heir"] == (said["pid"] if again == "again" else 0)
    assert thesis.of("alice", "thesis")["status"] == "running"


# ── floods ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def waits(home: House, seconds: float = 4) -> dict[str, Any]:
    """How long alice waits, in milliseconds."""
    found: dict[str, Any] = deed(home, "wait_turn", USERS["alice"], str(seconds))
    assert found["kinds"] == {"ok": found["n"]}, found
    return found


@pytest.mark.parametrize("what", ["health", "status", "events", "garbage", "twice", "batch"])
def test_a_flood_of_one_user_delays_another_for_a_bounded_time(thesis: House, what: str) -> None:
    alone = waits(thesis, 0.5)
    with doing(thesis, "flood", USERS["bob"], what, "2", "64"):
        time.sleep(0.4)
        beside = waits(thesis, 1.2)
    print(f"alice alone {alone}\nbeside bob's flood of {what}: {beside}")
    assert beside["worst"] < 5000


@pytest.mark.parametrize("what", ["silent", "half", "head", "unread", "events"])
def test_hundreds_of_connections_of_others_delay_nobody_and_root_gets_in_even_when_all_are_taken(
    thesis: House, what: str
) -> None:
    with contextlib.ExitStack() as others:
        for uid in (USERS["bob"], USERS["carol"], 7001, 7002, 7003, 7004):
            others.enter_context(held(thesis, what, uid, 70))
        print(f"alice beside 384 connections, {what}: {waits(thesis, 1)}")
        for uid in (7005, 7006):
            others.enter_context(held(thesis, what, uid, 70))
        done = thesis.server.exec(*HEALTH)
        assert done.stdout == "ok\n"
        began = time.monotonic()
        thesis.run("alice", "container-list", check=False)
        assert time.monotonic() - began < 5


# ── the second door ──────────────────────────────────────────────────────────────────────────────────────────────────


def ticket(home: House) -> tuple[str, str]:
    made = home.rpc("alice", "exec.start", name="thesis", argv=["sleep", "30"])["result"]
    return made["ticket"], made["exec"]


def fetch(home: House, uid: int, shown: str) -> tuple[str, int]:
    line, fds = deed(home, "fetch", uid, shown)
    return line, fds


def test_a_ticket_is_good_for_its_owner_once_and_not_for_long(thesis: House) -> None:
    late, _ = ticket(thesis)
    began = time.monotonic()
    good, exec_id = ticket(thesis)
    for thief in (USERS["bob"], USERS["dana"], 0, NOBODY):
        line, fds = fetch(thesis, thief, good)
        assert (line.startswith("no "), fds) == (True, 0), (thief, line)
    assert fetch(thesis, USERS["alice"], good) == (f"ok {exec_id}\n", 1)
    assert fetch(thesis, USERS["alice"], good)[1] == 0

    time.sleep(max(0.0, began + 5.5 - time.monotonic()))
    assert fetch(thesis, USERS["alice"], late)[1] == 0


@pytest.mark.parametrize("garbage", ["", "x", "a" * 300, "\x01\x02", "ok\nok", "é", " "])
def test_what_is_no_ticket_is_refused_in_words(thesis: House, garbage: str) -> None:
    line, fds = fetch(thesis, USERS["alice"], garbage)
    assert line.startswith("no ")
    assert fds == 0


@pytest.mark.parametrize("what", ["shells", "ticket"])
def test_a_user_who_crowds_the_second_door_keeps_nobody_from_his_shell(thesis: House, what: str) -> None:
    with held(thesis, what, USERS["bob"], 200):
        good, exec_id = ticket(thesis)
        assert fetch(thesis, USERS["alice"], good) == (f"ok {exec_id}\n", 1)


# ── users' paths ─────────────────────────────────────────────────────────────────────────────────────────────────────

PATHS: Final = {
    "/home/alice/link-to-bob": (3, "open it"),
    "/home/alice/fifo": (2, "no directory"),
    "/home/alice/circle": (2, "circle"),
    "/home/alice/../bob": (3, "open it"),
    "/home/alice/link-to-etc": (2, "machine's own"),
    "/home/alice/../../etc": (2, "machine's own"),
    "/proc/1/root/home/bob": (3, "open it"),
    "/proc/self/cwd": (2, ""),
    "/dev/fd/0": (2, ""),
    "/tmp": (2, "neither in your home"),
    "/": (2, "machine's own"),
    "/home/alice/a:b": (2, "colon"),
    "relative": (2, "write it from"),
    "/home/alice/" + "d/" * 600: (2, ""),
}


@pytest.fixture
def paths(thesis: House) -> House:
    script = """
    ln -sfn /home/bob /home/alice/link-to-bob; ln -sfn /etc /home/alice/link-to-etc
    ln -sfn circle /home/alice/circle; mkfifo /home/alice/fifo 2>/dev/null || true
    mkdir -p /home/alice/a:b /home/alice/many; chmod 700 /home/bob
    [ -e /home/alice/many/f1 ] || (cd /home/alice/many && seq -f f%g 1 50000 | xargs touch)
    chown -h alice: /home/alice/* ; chown -R alice: /home/alice/many
    """
    thesis.server.exec("sh", "-c", script)
    return thesis


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_the_users_is_refused_in_his_words_and_at_once(paths: House, path: str) -> None:
    code, words = PATHS[path]
    began = time.monotonic()
    answer = paths.rpc("alice", "container.create", name="p", image="bb", workspace=path, cpu_only=True)
    assert time.monotonic() - began < 3
    assert answer["error"]["data"]["exit_code"] in {code, 2, 3}, answer
    assert words in answer["error"]["message"], answer
    assert paths.of("alice", "thesis")["status"] == "running"


def test_a_huge_directory_costs_no_time(paths: House) -> None:
    began = time.monotonic()
    paths.create("alice", "huge", "--cpu-only", "-w", "/home/alice/many")
    assert time.monotonic() - began < 3


def test_a_place_that_is_swapped_all_the_time_is_never_somebody_elses(paths: House) -> None:
    place = "/home/alice/swapped"
    with doing(paths, "swap", USERS["alice"], place, "/home/bob", "5"):
        for n in range(8):
            name = f"swap-{n}"
            answer = paths.rpc("alice", "container.create", name=name, image="bb", workspace=place, cpu_only=True)
            if "result" in answer:
                paths.rpc("alice", "container.start", name=name)
                there = paths.server.docker("exec", paths.engine_name("alice", name), "ls", "/workspace", check=False)
                assert "workspace" not in there.stdout.split(), "bob's home is in alice's container"
    sources = re.findall(r'"Source": "([^"]*)"', json.dumps([paths.inspect("alice", n) for n in paths.list("alice")]))
    assert "/home/bob" not in sources


DEAD: Final = """
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"dead", sys.argv[1].encode(), b"fuse.dead", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
"""


def test_a_dead_file_server_delays_only_him_who_asks_for_it(paths: House) -> None:
    paths.server.exec("mkdir", "-p", "/home/bob/dead")
    paths.server.write("/root/dead.py", DEAD)
    # Where the daemon lives: a box hands mounts on to nobody.
    there = ("nsenter", "--mount", "--target", str(paths.server.main_pid(DAEMON)))
    server = paths.server.popen(*there, "python3", "/root/dead.py", "/home/bob/dead")
    assert server.stdout is not None
    assert server.stdout.readline() == b"mounted\n", server.communicate()
    create = shlex.quote(
        json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "container.create",
                "params": {"name": "d", "image": "bb", "cpu_only": True, "workspace": "/home/bob/dead/x"},
            }
        )
    )
    post = "curl -s --unix-socket /run/ds01/ds01d.sock -H content-type:application/json http://x/rpc -d"
    asking = paths.server.popen("sh", "-c", f"for n in 1 2 3 4 5 6; do {post} {create} & done; wait", user="bob")
    try:
        beside = waits(paths)
        out, _ = asking.communicate(timeout=30)
        print(f"alice beside bob's dead file server: {beside}; he was told {out[:300]!r}")
        assert beside["worst"] < 2000
        told = [json.loads(line)["error"]["message"] for line in out.splitlines()]
        assert len(told) == 6
        assert {"does not answer" in words or "try again in a moment" in words for words in told} == {True}, told
    finally:
        server.communicate(b"")
        paths.server.exec(*there, "umount", "--lazy", "/home/bob/dead", check=False)
