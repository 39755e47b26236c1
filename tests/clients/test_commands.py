"""What each command asks for, what it shows where, and with which code it ends."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import Run
from tests.clients.daemon import FakeDaemon, Reply, error, result

HERE = Path.cwd()
ASKS: dict[str, tuple[str, dict[str, object]]] = {
    "container-list": ("container.list", {}),
    "container list": ("container.list", {}),
    "container-list -a --wide": ("container.list", {"all": True, "wide": True}),
    "container-list --user bob": ("container.list", {"user": "bob"}),
    "container-why thesis": ("container.why", {"name": "thesis"}),
    "container-create thesis bb": ("container.create", {"name": "thesis", "image": "bb"}),
    "container-create thesis --image bb": ("container.create", {"name": "thesis", "image": "bb"}),
    "container-create thesis": ("container.create", {"name": "thesis"}),
    "container-create thesis bb -g 2 --gpu-type 2g.20gb --gpu-memory 20g": (
        "container.create",
        {"name": "thesis", "image": "bb", "gpus": 2, "gpu_type": "2g.20gb", "gpu_memory": "20g"},
    ),
    "container-create t bb --cpu-only -w proj -d /data -m /models": (
        "container.create",
        {
            "name": "t",
            "image": "bb",
            "cpu_only": True,
            "workspace": f"{HERE}/proj",
            "data": "/data",
            "models": "/models",
        },
    ),
    "container-create t bb --network host --user bob --dry-run": (
        "container.create",
        {"name": "t", "image": "bb", "network_host": True, "user": "bob", "dry_run": True},
    ),
    "container-start thesis": ("container.start", {"name": "thesis"}),
    "container-start thesis --dry-run": ("container.start", {"name": "thesis", "dry_run": True}),
    "container-stop thesis": ("container.stop", {"name": "thesis"}),
    "container-stop thesis --release": ("container.stop", {"name": "thesis", "release": True}),
    "container-stop thesis -t 1m30s": ("container.stop", {"name": "thesis", "grace_s": 90}),
    "container-stop thesis -f": ("container.stop", {"name": "thesis", "grace_s": 0}),
    "container-stop thesis --user bob --dry-run": (
        "container.stop",
        {"name": "thesis", "user": "bob", "dry_run": True},
    ),
    "container-cleanup thesis --yes": ("container.remove", {"name": "thesis"}),
    "container-remove thesis -fy": ("container.remove", {"name": "thesis", "force": True}),
    "container-cleanup thesis --dry-run": ("container.remove", {"name": "thesis", "dry_run": True}),
    "container-run thesis --dry-run": ("container.start", {"name": "thesis", "dry_run": True}),
    "ds01-run --name t bb --dry-run": ("container.create", {"name": "t", "image": "bb", "dry_run": True}),
    "ds01ctl status": ("system.status", {}),
    "ds01ctl gpus": ("gpu.list", {}),
    "ds01ctl allocations": ("allocation.list", {}),
    "ds01ctl allocations --all": ("allocation.list", {"all": True}),
    "ds01ctl story 0:1": ("system.story", {"thing": "0:1"}),
    "ds01ctl story thesis --user bob -n 5": ("system.story", {"thing": "thesis", "user": "bob", "limit": 5}),
    "ds01ctl events": ("system.events", {}),
    "ds01ctl events --user bob --type gpu --container t --since 2h --until 1h -n 5 --summary": (
        "system.events",
        {"user": "bob", "type": "gpu", "container": "t", "since": "2h", "until": "1h", "limit": 5, "summary": True},
    ),
    "ds01ctl release thesis --user bob --engine-gone": (
        "container.release",
        {"name": "thesis", "user": "bob", "engine_gone": True},
    ),
    "ds01ctl thaw thesis --user bob": ("container.thaw", {"name": "thesis", "user": "bob"}),
    "ds01ctl version": ("system.version", {}),
}


@pytest.mark.parametrize("line", ASKS)
def test_a_command_asks_for_what_it_says(line: str, run: Run, daemon: FakeDaemon) -> None:
    done = run(*line.split())

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("done\n")
    [asked] = daemon.asked
    params = {k: v for k, v in asked.params.items() if k != "request_id"}
    assert (asked.method, params) == ASKS[line]
    assert asked.headers["Ds01-Show"] == "text"
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.headers["Ds01-Client"] == "0.1.0"


@pytest.mark.parametrize("line", [line for line in ASKS if "run" not in line])
def test_with_json_the_answer_is_asked_for_as_json_and_nothing_else_is_on_stdout(
    line: str, run: Run, daemon: FakeDaemon
) -> None:
    method = ASKS[line][0]
    daemon.answers[method] = result({"answer": 42})

    done = run(*line.split(), "--json")

    commands = {"commands": "0.1.0"} if line == "ds01ctl version" else {}
    assert (done.returncode, json.loads(done.stdout)) == (0, {"answer": 42, **commands})
    assert [a.headers["Ds01-Show"] for a in daemon.asked] == ["json"]


@pytest.mark.parametrize("verb", ["create", "start"])
def test_a_create_and_a_start_carry_a_word_of_their_own(verb: str, run: Run, daemon: FakeDaemon) -> None:
    for _ in range(2):
        run(f"container-{verb}", "thesis", *(["bb"] if verb == "create" else []))

    first, second = daemon.asked
    assert first.params["request_id"] != second.params["request_id"]


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 75])
def test_a_refusal_goes_to_stderr_and_its_code_is_the_commands(exit_code: int, run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.create"] = Reply("cannot do it\nhint: wait\n", exit_code)

    done = run("container-create", "thesis", "bb")

    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", "cannot do it\nhint: wait\n")


def test_a_refusal_as_json_goes_to_stdout(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.create"] = error("none_free", 75)

    done = run("container-create", "thesis", "bb", "--json")

    assert done.returncode == 75
    assert json.loads(done.stdout)["error"]["kind"] == "none_free"
    assert done.stderr == ""


USAGE: dict[str, str] = {
    "container-create": "what is it to be called? container-create NAME IMAGE",
    "container-create t bb --image cc": "two images, 'bb' and 'cc': name one",
    "container-create t bb --cpu-only -g 1": "--cpu-only means no GPU, and --gpus asks for one",
    "container-create t bb --network none": "--network expects host, and was given 'none'",
    "container-list thesis": "cannot tell what 'thesis' is for",
    "container-start": "which container? container-start NAME; `container-list` lists yours",
    "container-stop": "which container? container-stop NAME, or --all; `container-list` lists yours",
    "container-stop thesis --all": "--all means every one, and 'thesis' is one",
    "container-stop thesis -f -t 30s": "--force means at once, and --time gives it time",
    "container-stop thesis -t 30": "-t expects a unit: -t 30s for seconds, -t 30m for minutes",
    "container-why": "which container? container-why NAME",
    "container-cleanup thesis": "there is no terminal to ask on: add --yes if you mean it, or --dry-run",
    "container-remove thesis -f": "there is no terminal to ask on: add --yes",
    "container-run": "a shell needs a terminal",
    "container-run thesis": "a shell needs a terminal",
    "ds01-run": "from which image? ds01-run IMAGE",
    "ds01-run bb": "a shell needs a terminal",
    "ds01ctl evnts": "there is no 'evnts'; did you mean events?",
    "ds01ctl zzz": "there is no 'zzz'; there are status, gpus",
    "ds01ctl story thesis -n 0": "-n expects a number from 1 to 10000, and was given 0",
    "ds01ctl events --limit 10001": "--limit expects a number from 1 to 10000, and was given 10001",
    "ds01ctl story": "THING is missing: ds01ctl story THING",
    "ds01ctl release": "NAME is missing: ds01ctl release NAME",
    "ds01ctl events --follow --since 2h": "--follow shows what happens from now on, and --since",
}


@pytest.mark.parametrize("line", USAGE)
def test_a_usage_error_is_2_and_says_what_to_do_before_anything_is_asked(
    line: str, run: Run, daemon: FakeDaemon
) -> None:
    done = run(*line.split())

    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{line.split(maxsplit=1)[0]}: {USAGE[line]}" in done.stderr
    assert "\nhint: " in done.stderr
    assert daemon.asked == []


@pytest.mark.parametrize(
    "line", ["container-exec", "container-exec thesis", "container-exec thesis ls", "container-exec --x"]
)
def test_a_failure_of_exec_is_never_mistaken_for_its_commands(line: str, run: Run) -> None:
    assert run(*line.split()).returncode == 125


def test_a_usage_error_of_a_script_that_wants_json_is_json(run: Run) -> None:
    done = run("container-stop", "--json")

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "usage"


def test_the_width_and_colours_of_a_pipe_are_none(run: Run, daemon: FakeDaemon) -> None:
    run("container-list")

    assert daemon.asked[0].headers["Ds01-Terminal"] == "colour=0"


ROWS = [
    {"name": "a", "user": "alice", "status": "running"},
    {"name": "b", "user": "alice", "status": "stopped"},
    {"name": "c", "user": "alice", "status": "parked"},
    {"name": "d", "user": "alice", "status": "frozen"},
]


@pytest.mark.parametrize(
    ("line", "method", "names"),
    [
        ("container-stop --all --yes", "container.stop", {"a"}),
        ("container-stop -a --yes --release", "container.stop", {"a", "b"}),
        ("container-cleanup -a --yes -f", "container.remove", {"a", "b", "c"}),
        ("container-cleanup --all --dry-run", "container.remove", {"a", "b", "c"}),
    ],
)
def test_all_means_each_for_which_there_is_something_to_do(
    *, line: str, method: str, names: set[str], run: Run, daemon: FakeDaemon
) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})

    done = run(*line.split())

    assert done.returncode == 0
    asked = [a for a in daemon.asked if a.method == method]
    assert {a.params["name"] for a in asked} == names
    assert all(a.params["user"] == "alice" for a in asked)
    assert all(a.params.get("dry_run", False) is ("--dry-run" in line) for a in asked)
    assert done.stdout == "done\n" * len(names)


def test_one_refusal_among_all_is_the_exit_code(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})
    daemon.answers["container.remove"] = lambda p: Reply("no\n", 1) if p["name"] == "b" else Reply()

    done = run("container-cleanup", "--all", "--yes")

    assert (done.returncode, done.stdout, done.stderr) == (1, "done\ndone\n", "no\n")


def test_all_of_nothing_is_done_already(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": []})

    done = run("container-stop", "--all", "--yes")

    assert done.returncode == 0
    assert done.stderr == "there is nothing to do\n"


def test_all_without_a_terminal_wants_a_yes(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})

    done = run("container-stop", "--all")

    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "container.stop" not in daemon.methods()


def test_the_versions_of_both_are_told_even_if_one_is_away(run: Run) -> None:
    assert run("ds01ctl", "version").stdout == "commands 0.1.0\ndone\n"

    away = run("ds01ctl", "version", DS01_SOCKET="/nowhere")

    assert (away.returncode, away.stdout) == (69, "commands 0.1.0\n")


def test_the_versions_of_both_are_told_as_json_even_if_one_is_away(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["system.version"] = result({"version": "0.1.0", "api_level": 1})
    there = run("ds01ctl", "version", "--json")
    assert json.loads(there.stdout) == {"commands": "0.1.0", "version": "0.1.0", "api_level": 1}

    away = run("ds01ctl", "version", "--json", DS01_SOCKET="/nowhere")
    told = json.loads(away.stdout)
    assert (away.returncode, told["commands"], told["error"]["kind"]) == (69, "0.1.0", "unreachable")
