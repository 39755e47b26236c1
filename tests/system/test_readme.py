"""The README's tour and HACKING's requests are what really happens: they are run as they stand there, and compared."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.server import Server

pytestmark = pytest.mark.system

CHECKOUT = Path(__file__).resolve().parents[2]
PROMPT = re.compile(r"(alice|bob|carol|dana)\$ (.+)")
INSIDE = "/workspace $ "
#: What a terminal shows beside the words: colours, questions for the cursor, the greeting of BusyBox.
NOISE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r|BusyBox v.*|Enter 'help' .*")
#: What is another one each time: clocks, with the day where it is another day, spans, ages.
PASSING = [
    (re.compile(r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d+ (s|min|h) ago\b"), "AGO"),
    (re.compile(r"\bin \d+ min\b"), "SOON"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as booted:
        yield booted


def fenced(file: str, heading: str) -> list[str]:
    """The lines in the fences of one section."""
    section = (CHECKOUT / file).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def plain(text: str) -> list[str]:
    """Words only, without what passes."""
    for pattern, word in [(NOISE, ""), *PASSING]:
        text = pattern.sub(word, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def typed(server: Server, user: str, command: str, lines: list[str]) -> str:
    """A command on a terminal, with lines typed at the prompt of the shell that it opens."""
    with server.spawn_pty("bash", "-lc", command, user=user, columns=120) as terminal:
        for line in lines:
            terminal.expect(re.escape(INSIDE))
            terminal.send(f"{line}\r")
        terminal.wait(20)
        return terminal.output


def play(server: Server, script: list[str]) -> list[str]:
    """What really comes of the commands in a script."""
    seen = []
    for at, line in enumerate(script):
        if (found := PROMPT.fullmatch(line)) is None:
            continue
        user, command = found.groups()
        rest = script[at + 1 :]
        until = next((n for n, other in enumerate(rest) if PROMPT.fullmatch(other)), len(rest))
        keys = [other.removeprefix(INSIDE) for other in rest[:until] if other.startswith(INSIDE)]
        if keys:
            said = typed(server, user, command, keys)
        else:
            done = server.exec(*shlex.split(command), user=user, check=False)
            said = done.stdout + done.stderr
        seen += [line, *said.splitlines()]
    return seen


def test_the_tour_of_the_readme_is_what_the_commands_print(server: Server) -> None:
    script = fenced("README.md", "A tour")
    assert sum(PROMPT.fullmatch(line) is not None for line in script) >= 8

    seen = play(server, script)

    assert plain("\n".join(script)) == plain("\n".join(seen)), "\n".join(seen)


def test_the_requests_of_hacking_are_answered(server: Server) -> None:
    requests = "\n".join(fenced("HACKING.md", "Talk to the daemon")).replace("\\\n", " ").splitlines()
    asked = [line for line in requests if line.startswith("curl") and "/rpc" in line]
    assert len(asked) == 3

    for line in asked:
        answer = server.exec("bash", "-c", f"set -o pipefail; {line}", user="alice").stdout
        assert "error" not in answer, answer
        assert "container.create" in answer or "result" in json.loads(answer), answer
    stream = next(line for line in requests if line.startswith("curl") and "/events" in line)
    # At its end the line may have a comment, so it comes last.
    follow = f"(sleep 0.5; container-create x bb --cpu-only) >/dev/null & timeout 2 {stream}"
    lines = server.exec("bash", "-c", follow, user="alice", check=False).stdout.splitlines()
    assert "container.created" in [json.loads(line)["event_type"] for line in lines if line.strip()], lines
