"""Look-ups that are slow, silent or wrong: an answer comes in time, and silence is never taken for *no such*."""

import asyncio
import os
import pwd
import threading
import time
from collections.abc import Iterator

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
    assert time.monotonic() - begun < 1


async def test_a_server_that_is_down_is_silent_and_not_empty(directory: Directory) -> None:
    directory.down = True

    assert await Accounts(directory).by_name("mallory") is Missing.SILENT


async def test_while_the_server_is_silent_its_last_answer_holds(directory: Directory) -> None:
    accounts = Accounts(directory, deadline_s=0.05, fresh_s=0.0)
    await accounts.by_uid(ALICE.uid)
    directory.answers.clear()

    hung = await accounts.by_uid(ALICE.uid)
    directory.down = True
    directory.answers.set()
    down = await accounts.by_uid(ALICE.uid)

    assert (hung, down) == (ALICE, ALICE)


async def test_an_answer_that_came_too_late_is_there_for_the_next_one(directory: Directory) -> None:
    directory.answers.clear()
    accounts = Accounts(directory, deadline_s=0.05)
    late = await accounts.by_uid(ALICE.uid)

    directory.answers.set()
    await asyncio.sleep(0.05)

    assert (late, await accounts.by_uid(ALICE.uid)) == (Missing.SILENT, ALICE)
    assert directory.asked == 1


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
