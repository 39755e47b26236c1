"""What `--help` shows is what the golden files hold, and the list of all commands says what each says of itself."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ds01client import containers, control, shells, throwaway
from ds01client.launch import MODULES
from ds01client.options import Command
from tests.clients.conftest import BIN, Run
from tests.clients.daemon import FakeDaemon

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "help"
COMMANDS = sorted(p.name for p in BIN.iterdir())
TABLES: dict[str, Command] = {
    **containers.COMMANDS,
    **control.VERBS,
    **{c.name: c for c in (shells.RUN, shells.EXEC, throwaway.DS01_RUN)},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_what_was_agreed(name: str, run: Run, daemon: FakeDaemon, golden: Callable[[Path, str], None]) -> None:
    done = run(name, "--help")

    assert (done.returncode, done.stderr, daemon.asked) == (0, "", [])
    golden(GOLDEN / f"{name}.txt", done.stdout)


@pytest.mark.parametrize("verb", sorted(control.VERBS))
def test_each_verb_of_ds01ctl_has_its_help(verb: str, run: Run, golden: Callable[[Path, str], None]) -> None:
    done = run("ds01ctl", verb, "-h")

    assert done.returncode == 0
    golden(GOLDEN / f"ds01ctl-{verb}.txt", done.stdout)
    assert run("ds01ctl", "help", verb).stdout == done.stdout


@pytest.mark.parametrize("file", sorted(GOLDEN.iterdir()), ids=lambda f: f.stem)
def test_help_ends_with_what_the_exit_codes_mean(file: Path) -> None:
    last = file.read_text().rstrip("\n").rpartition("\n\n")[2]
    assert last.startswith("exit codes: ")
    assert last.count("\n") <= 1


def test_help_fits_on_a_page() -> None:
    for file in GOLDEN.iterdir():
        widest = max(file.read_text().splitlines(), key=len)
        assert len(widest) <= 120, f"{file.name}: {widest}"


def test_every_command_is_there_under_every_spelling(run: Run, daemon: FakeDaemon) -> None:
    assert {*MODULES, "container", "container-exit"} == set(COMMANDS)
    for name in COMMANDS:
        if name.startswith("container-"):
            verb = name.removeprefix("container-")
            for words in ([verb, "--help"], ["help", verb]):
                assert run("container", *words).stdout == run(name, "--help").stdout
    assert daemon.asked == []


def test_the_list_of_commands_says_of_each_what_it_says_itself(run: Run) -> None:
    for shown in (run("container"), run("container", "help"), run("container", "--help")):
        assert shown.returncode == 0
        listed = dict(re.findall(r"^  (\w+) +(.+)$", shown.stdout, re.MULTILINE))
        assert {f"container-{verb}" for verb in listed} == {c for c in COMMANDS if c.startswith("container-")}
        for verb, summary in listed.items():
            assert f"\n{summary}\n" in run("container", verb, "--help").stdout


def test_an_unknown_word_is_a_usage_error(run: Run) -> None:
    for words in (
        ["container", "lst"],
        ["container", "help", "lst"],
        ["ds01ctl", "help", "lst"],
        ["container", "../../bin/sh"],
        ["container", "-x"],
        ["container-exit", "now"],
    ):
        done = run(*words)
        assert done.returncode == 2
        assert done.stdout == ""
        assert words[-1] in done.stderr


def test_how_to_leave_a_shell_is_explained(run: Run) -> None:
    done = run("container-exit")

    assert done.returncode == 0
    assert "`exit`" in done.stdout
    assert "container-stop NAME --release" in done.stdout


def test_every_option_that_shares_a_letter_means_the_same_family() -> None:
    """No table has one flag twice; what reads well as a table must be unambiguous too."""
    for table in TABLES.values():
        flags = [f for o in table.options for f in o.flags]
        assert len(flags) == len(set(flags)), table.name


def test_every_change_can_be_tried_out() -> None:
    changing = {"create", "start", "stop", "cleanup", "remove", "run"}
    for name in [*(f"container-{verb}" for verb in changing), "ds01-run", "ds01ctl release"]:
        table = next(t for t in TABLES.values() if t.name == name)
        assert any(o.name == "--dry-run" for o in table.options), name
