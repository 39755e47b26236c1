"""Look-ups that are slow, silent or wrong: an answer comes in time, and silence is never taken for *no such*."""

import asyncio
import grp
import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.accounts import Accounts
from ds01d.adapters.accounts_nss import System, UnixGroup
from ds01d.model.account import Account, Missing
from ds01d.model.ids import Uid

ALICE = Account(uid=Uid(1001), gid=100, name="alice", home="/home/alice")
BOB = Account(uid=Uid(1002), gid=200, name="bob", home="/home/bob")


class Directory:
    """A directory server that can be hung up, taken down, and counts what it is asked."""

    def __init__(self) -> None:
        self.accounts = [ALICE, BOB]
        self.group_list = {"lab": UnixGroup(name="lab", gid=200, members=("alice",))}
        self.membership = {"alice": ("users", "lab"), "bob": ("lab",)}
        self.answers = threading.Event()
        self.answers.set()
        self.down = False
        self.listed = True
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        self.answers.wait()
        if self.down:
            raise OSError(5, "the server is down")

    def user_by_uid(self, uid: Uid) -> Account:
        self._ask()
        return next(self._only(a for a in self.accounts if a.uid == uid))

    def user_by_name(self, name: str) -> Account:
        self._ask()
        return next(self._only(a for a in self.accounts if a.name == name))

    def users(self) -> tuple[Account, ...]:
        self._ask()
        return tuple(self.accounts) if self.listed else ()

    def group_by_name(self, name: str) -> UnixGroup:
        self._ask()
        return self.group_list[name]

    def groups_of(self, account: Account) -> tuple[str, ...]:
        self._ask()
        return self.membership[account.name]

    @staticmethod
    def _only(found: Iterator[Account]) -> Iterator[Account]:
        for account in found:
            yield account
            return
        raise LookupError


@pytest.fixture
def directory() -> Iterator[Directory]:
    made = Directory()
    yield made
    made.answers.set()


async def test_what_exists_is_found_and_what_does_not_is_no_such(directory: Directory) -> None:
    accounts = Accounts(directory)

    assert await accounts.by_uid(ALICE.uid) == ALICE
    assert await accounts.by_name("bob") == BOB
    assert await accounts.by_name("mallory") is Missing.NO_SUCH
    assert await accounts.group_id("lab") == 200
    assert await accounts.group_id("no-lab") is Missing.NO_SUCH
    assert await accounts.groups_of(ALICE) == ("users", "lab")


async def test_a_server_that_hangs_is_silent_within_the_deadline(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory, deadline_s=0.05)
    begun = time.monotonic()

    assert await accounts.by_uid(ALICE.uid) is Missing.SILENT
    assert time.monotonic() - begun < 5


async def test_a_server_that_is_down_is_silent_and_not_empty(directory: Directory) -> None:
    directory.down = True

    assert await Accounts(directory).by_name("mallory") is Missing.SILENT


async def test_while_the_server_is_silent_its_last_answer_holds(directory: Directory) -> None:
    accounts = Accounts(directory, deadline_s=0.5, fresh_s=0.0)
    await accounts.by_uid(ALICE.uid)
    directory.answers.clear()

    hung = await accounts.by_uid(ALICE.uid)
    directory.down = True
    directory.answers.set()
    down = await accounts.by_uid(ALICE.uid)

    assert (hung, down) == (ALICE, ALICE)


async def test_an_answer_that_came_too_late_is_there_for_the_next_one(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory, deadline_s=0.5)
    late = await accounts.by_uid(ALICE.uid)

    directory.answers.set()
    await asyncio.sleep(0.5)

    assert (late, await accounts.by_uid(ALICE.uid)) == (Missing.SILENT, ALICE)
    assert directory.asked == 1


class HalfDead(Directory):
    """A directory in which only what lies far away hangs; uids from 5000 on do."""

    def user_by_uid(self, uid: Uid) -> Account:
        if uid >= 5000:
            self.answers.wait()
        return next(self._only(a for a in self.accounts if a.uid == uid))


@pytest.fixture
def half_dead() -> Iterator[HalfDead]:
    made = HalfDead()
    made.answers.clear()
    yield made
    made.answers.set()


async def test_one_that_hangs_holds_up_nobody_else(half_dead: HalfDead) -> None:
    accounts = Accounts(half_dead, deadline_s=0.3)

    hung, found = await asyncio.gather(accounts.by_uid(Uid(5000)), accounts.by_uid(ALICE.uid))

    assert (hung, found) == (Missing.SILENT, ALICE)


async def test_what_hung_beyond_the_deadline_is_waited_for_no_more(half_dead: HalfDead) -> None:
    accounts = Accounts(half_dead, deadline_s=0.3)
    await accounts.by_uid(Uid(5000))
    begun = time.monotonic()

    again = [await accounts.by_uid(Uid(5000)) for _ in range(5)]

    assert set(again) == {Missing.SILENT}
    assert time.monotonic() - begun < 5 * 0.3


async def test_once_all_threads_hang_everybody_is_answered_at_once_from_memory(half_dead: HalfDead) -> None:
    accounts = Accounts(half_dead, deadline_s=1.0, fresh_s=0.0)
    before = threading.active_count()
    known = await accounts.by_uid(ALICE.uid)
    await asyncio.gather(*(accounts.by_uid(Uid(5000 + n)) for n in range(30)))
    begun = time.monotonic()

    answers = [await accounts.by_uid(ALICE.uid), await accounts.by_uid(BOB.uid), await accounts.by_uid(Uid(6000))]

    assert answers == [known, Missing.SILENT, Missing.SILENT]
    assert time.monotonic() - begun < 2.0  # the two who are silent would take 1 s each
    assert threading.active_count() - before <= 8


async def test_after_the_server_has_come_back_everybody_is_found_again(half_dead: HalfDead) -> None:
    accounts = Accounts(half_dead, deadline_s=0.1)
    await asyncio.gather(*(accounts.by_uid(Uid(5000 + n)) for n in range(30)))

    half_dead.answers.set()
    await asyncio.sleep(0.1)

    assert await accounts.by_uid(BOB.uid) == BOB
    assert await accounts.by_uid(Uid(5000)) is Missing.NO_SUCH


async def test_many_who_ask_the_same_are_one_question(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory)

    asking = [asyncio.create_task(accounts.by_uid(ALICE.uid)) for _ in range(50)]
    await asyncio.sleep(0.02)
    directory.answers.set()

    assert set(await asyncio.gather(*asking)) == {ALICE}
    assert directory.asked == 1


async def test_a_question_whose_asker_went_away_is_still_answered_for_others(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory)
    gone = asyncio.create_task(accounts.by_uid(ALICE.uid))
    await asyncio.sleep(0.01)

    gone.cancel()
    directory.answers.set()

    assert await accounts.by_uid(ALICE.uid) == ALICE


async def test_a_fresh_answer_is_not_asked_for_again_and_an_old_one_is(directory: Directory) -> None:
    remembering, forgetting = Accounts(directory), Accounts(directory, fresh_s=0.0)

    for accounts in (remembering, forgetting):
        await accounts.by_uid(ALICE.uid)
        await accounts.by_uid(ALICE.uid)

    assert directory.asked == 1 + 2


def test_a_group_that_hangs_holds_who_asks_for_its_gid_up_for_the_deadline_and_then_no_more(
    directory: Directory,
) -> None:
    accounts = Accounts(directory, deadline_s=0.1)
    directory.answers.clear()
    began = time.monotonic()
    assert [accounts.find_group_id("lab") for _ in range(20)] == [Missing.SILENT] * 20
    assert time.monotonic() - began < 1
    directory.answers.set()
    assert Accounts(directory).find_group_id("lab") == 200
    assert Accounts(directory).find_group_id("nobodys") is Missing.NO_SUCH


def test_members_are_those_of_the_list_and_those_whose_primary_group_it_is(directory: Directory) -> None:
    assert Accounts(directory).find_members("lab") == frozenset({ALICE.uid, BOB.uid})


async def test_a_directory_that_cannot_be_listed_gives_those_whom_we_met(directory: Directory) -> None:
    directory.listed = False
    directory.group_list["lab"] = UnixGroup(name="lab", gid=999, members=())
    accounts = Accounts(directory)
    before = accounts.find_members("lab")

    await accounts.by_uid(BOB.uid)

    assert (before, accounts.find_members("lab")) == (frozenset(), frozenset({BOB.uid}))


def test_members_that_were_not_all_answered_are_not_taken_for_all(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory, deadline_s=0.05)

    assert accounts.find_members("lab") is Missing.SILENT


async def test_a_name_for_show_never_waits_and_is_known_the_next_time(directory: Directory) -> None:
    accounts = Accounts(directory)

    assert accounts.name_of(BOB.uid) is None
    await accounts.by_uid(BOB.uid)
    assert accounts.name_of(BOB.uid) == "bob"


def test_the_real_directory_says_what_python_says_and_has_no_others() -> None:
    system = System()
    entry = pwd.getpwuid(os.geteuid())
    me = Account(uid=Uid(entry.pw_uid), gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)

    assert system.user_by_uid(me.uid) == me == system.user_by_name(me.name)
    assert me in system.users()
    assert system.group_by_name("root").gid == 0
    assert "root" in system.groups_of(system.user_by_uid(Uid(0)))
    with pytest.raises(LookupError):
        system.user_by_name("no-such-user")
    with pytest.raises(LookupError):
        system.user_by_uid(Uid(4_000_000_000))
    with pytest.raises(LookupError):
        system.group_by_name("no-such-group\0root")


_NSS_HANG = """
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <unistd.h>
#define HANGS(name, ...) enum nss_status _nss_hang_##name(__VA_ARGS__) { for (;;) pause(); }
HANGS(getpwuid_r, uid_t u, struct passwd *p, char *b, size_t n, int *e)
HANGS(getpwnam_r, const char *s, struct passwd *p, char *b, size_t n, int *e)
enum nss_status _nss_hang_setpwent(int keep) { return NSS_STATUS_SUCCESS; }
enum nss_status _nss_hang_endpwent(void) { return NSS_STATUS_SUCCESS; }
HANGS(getpwent_r, struct passwd *p, char *b, size_t n, int *e)
HANGS(getgrnam_r, const char *s, struct group *p, char *b, size_t n, int *e)
HANGS(getgrgid_r, gid_t g, struct group *p, char *b, size_t n, int *e)
HANGS(initgroups_dyn, const char *s, gid_t g, long *i, long *z, gid_t **gs, long l, int *e)
"""

#: Its argument is the question that hangs; another thread goes on meanwhile, and what lies in files is found.
_ASK = """
import asyncio, ctypes, faulthandler, os, sys
from ds01d.adapters.accounts import Accounts
faulthandler.dump_traceback_later(20, exit=True)
for database in (b"passwd", b"group", b"initgroups"):
    assert ctypes.CDLL(None).__nss_configure_lookup(database, b"files hang") == 0
async def main():
    accounts = Accounts(deadline_s=0.5)
    root = await accounts.by_uid(0)
    hung = {
        "uid": lambda: accounts.by_uid(4_000_000_000),
        "name": lambda: accounts.by_name("no-such-user"),
        "group": lambda: accounts.group_id("no-such-group"),
        "groups": lambda: accounts.groups_of(root),
        "members": lambda: asyncio.to_thread(accounts.find_members, "root"),
    }[sys.argv[1]]
    print(str(await hung()), (await accounts.by_name("daemon")).name, flush=True)
    os._exit(0)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def hanging_nss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a module for the C library's NSS that never answers."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    place = tmp_path_factory.mktemp("nss")
    (place / "hang.c").write_text(_NSS_HANG)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "libnss_hang.so.2", "hang.c"], cwd=place, check=True)
    return place


@pytest.mark.parametrize("question", ["uid", "name", "group", "groups", "members"])
def test_the_real_library_hanging_in_a_directory_stops_no_other_thread(hanging_nss: Path, question: str) -> None:
    """`os.getgrouplist` and `pwd.getpwall` would: they hang with the interpreter's lock."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK, question],
        env={"LD_LIBRARY_PATH": str(hanging_nss), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stdout == "silent daemon\n", done.stderr


def test_the_real_groups_of_everybody_are_what_python_says() -> None:
    system = System()

    for account in system.users():
        gids = os.getgrouplist(account.name, account.gid)
        assert system.groups_of(account) == tuple(name for gid in gids if (name := _group_name(gid)) is not None)
    assert {account.name for account in system.users()} == {entry.pw_name for entry in pwd.getpwall()}


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
