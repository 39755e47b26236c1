"""Names of cgroup slices: nobody shares one, and systemd takes them."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.model.slices import escape, group_slice, user_slice

names = st.text(st.characters(exclude_characters="\0\n/:", exclude_categories=["Cs"]), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("group", "user", "expected"),
    [
        ("student", "alice", "ds01-student-alice.slice"),
        ("msc-2026", "alice", "ds01-msc\\x2d2026-alice.slice"),
        ("student", "alice@lab.example", "ds01-student-alice\\x40lab.example.slice"),
        ("student", ".hidden", "ds01-student-\\x2ehidden.slice"),
        ("student", "jürgen", "ds01-student-j\\xc3\\xbcrgen.slice"),
        ("student", "a b\\c", "ds01-student-a\\x20b\\x5cc.slice"),
    ],
)
def test_each_part_is_escaped_as_systemd_does(group: str, user: str, expected: str) -> None:
    assert user_slice(group, user) == expected


@given(names, names, names, names)
def test_two_people_never_share_a_slice(group: str, user: str, other_group: str, other_user: str) -> None:
    same = (group, user) == (other_group, other_user)
    assert (user_slice(group, user) == user_slice(other_group, other_user)) is same


@given(names, names)
def test_every_name_is_one_that_systemd_takes(group: str, user: str) -> None:
    name = user_slice(group, user)
    assert len(name) <= 255
    assert re.fullmatch(r"ds01-[A-Za-z0-9:_.\\]+-[A-Za-z0-9:_.\\]+\.slice", name)
    assert name.startswith(group_slice(group).removesuffix(".slice") + "-")


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    long = "x" * 300
    assert user_slice("student", long + "a") != user_slice("student", long + "b")
    assert len(user_slice("g" * 300, long)) <= 255
    assert user_slice("g" * 300, "alice") != user_slice("g" * 301, "alice")


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape here")
@pytest.mark.parametrize("name", ["alice", "a-b", "a@b", ".x", "jürgen", "a b", "x.y:z_1", "\\x2d"])
def test_systemd_itself_escapes_a_part_so(name: str) -> None:
    said = subprocess.run(["systemd-escape", name], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == escape(name)
