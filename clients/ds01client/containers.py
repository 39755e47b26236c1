"""The commands that ask the daemon for one thing and show its answer: create, start, stop, list, cleanup, why."""

import posix

from ds01client.options import (
    DRY_RUN,
    HELP,
    PATH,
    SECONDS,
    SIZE,
    USER,
    WHOLE,
    YES,
    Command,
    Given,
    Option,
    UsageError,
    help_text,
    parse,
)
from ds01client.wire import call, shown, write

GPU_WISHES = (
    Option("-g --gpus", "N", "how many GPUs or MIG slices (1)", param="gpus", kind=WHOLE),
    Option("--gpu-type", "KIND", "any, full (whole GPUs), mig, or a profile such as 2g.20gb", param="gpu_type"),
    Option("--gpu-memory", "SIZE", "with at least so much memory, such as 40g", param="gpu_memory", kind=SIZE),
)
CPU_ONLY = Option("--cpu-only", "", "without a GPU", param="cpu_only")
NETWORK = Option("--network", "host", "the host's own network (operators)")
#: What a wish for a container consists of; `ds01-run` takes the same.
WISHES = (
    *GPU_WISHES,
    CPU_ONLY,
    Option("-w --workspace", "DIR", "what is at /workspace (~/workspace)", param="workspace", kind=PATH),
    Option("-d --data", "DIR", "a directory of data to be seen inside too", param="data", kind=PATH),
    Option("-m --models", "DIR", "the same, for models", param="models", kind=PATH),
    NETWORK,
)
IMAGE = Option("--image", "IMAGE", "another way to name IMAGE", param="image")
_ALL = Option("-a --all", "", "all of yours")
#: Left out by somebody at a terminal, it is asked for.
NAME = ("[NAME]", "which container; on a terminal you may choose from a list instead")

CREATE = Command(
    "container-create",
    "make a container that has a GPU, and keep it for you, stopped",
    operands=(
        ("NAME", "how you want to call it: letters, digits, - and _"),
        ("[IMAGE]", "what it is made from; without it, your own image called NAME"),
    ),
    options=(IMAGE, *WISHES, USER, DRY_RUN),
    text="Your files in /workspace are those in your workspace directory: they stay when the container goes.",
    examples=(
        ("container-create thesis pytorch", "one GPU or MIG slice, whichever is free"),
        ("container-create thesis pytorch --gpus 2", "two of them, or none"),
        ("container-create notes pytorch --cpu-only", "without a GPU"),
        ("container-run thesis", "afterwards: start it and open a shell in it"),
    ),
)
GRACE = Option("-t --time", "DURATION", "how long it may take to end, such as 30s", param="grace_s", kind=SECONDS)
FORCE = Option("-f --force", "", "end it at once")
START = Command(
    "container-start",
    "start a container and leave it running",
    operands=(NAME,),
    options=(USER, DRY_RUN),
    text="A container that still holds its GPU gets the same one; one that is parked asks for a GPU anew.",
    examples=(("container-start thesis", "start it"), ("container-run thesis", "start it and open a shell in it")),
)
STOP = Command(
    "container-stop",
    "stop a container; its GPU is held for a while, so that you can go on",
    operands=(NAME,),
    options=(
        GRACE,
        FORCE,
        Option("--release", "", "give its GPU back at once; its files stay", param="release"),
        _ALL,
        USER,
        DRY_RUN,
        YES,
    ),
    examples=(
        ("container-stop thesis", "stop it and keep its GPU for a while"),
        ("container-stop thesis --release", "stop it, if it runs, and give its GPU back now"),
        ("container-stop --all", "all of yours"),
    ),
)
LIST = Command(
    "container-list",
    "your containers, in any state",
    options=(
        Option("-a --all", "", "everybody's (operators)", param="all"),
        Option("--user", "NAME", "this person's (operators)", param="user"),
        Option("-w --wide", "", "with deadlines", param="wide"),
    ),
)
_CLEANUP_OPTIONS = (
    Option("-f --force", "", "even if it is running", param="force"),
    _ALL,
    USER,
    DRY_RUN,
    YES,
)
_CLEANUP_TEXT = "Gone is what was installed or written outside /workspace. Your workspace directory stays as it is."


def _cleanup(name: str, summary: str) -> Command:
    return Command(
        name,
        summary,
        operands=(NAME,),
        options=_CLEANUP_OPTIONS,
        text=_CLEANUP_TEXT,
        examples=(
            (f"{name} thesis", "show what that frees, ask, and do it"),
            (f"{name} thesis --yes", "do not ask"),
            (f"{name} --all --dry-run", "what there is to remove"),
        ),
    )


CLEANUP = _cleanup("container-cleanup", "remove a container and free its GPU")
REMOVE = _cleanup("container-remove", "the same as container-cleanup")
WHY = Command(
    "container-why",
    "why a container is as it is, and what will happen to it when",
    operands=(NAME,),
    options=(USER,),
)
COMMANDS = {c.name: c for c in (CREATE, START, STOP, LIST, CLEANUP, REMOVE, WHY)}

#: An engine may take minutes to stop or remove; the daemon gives up before we do. Seconds.
_PATIENCE_S = 3600.0


def main(name: str, words: list[str]) -> int:
    """Run one of these commands."""
    command = COMMANDS[name]
    given = parse(command, words)
    if given.has(HELP):
        write(1, help_text(command).encode())
        return 0
    match name:
        case "container-list":
            return shown(call("container.list", given.params, show=given.form, again=True), given.form)
        case "container-create":
            return _create(given)
        case "container-start":
            name_one(command, given)
            return change(given, "container.start", request_id=True)
        case "container-stop":
            return _stop(command, given)
        case "container-why":
            name_one(command, given)
            return shown(call("container.why", given.params, show=given.form, again=True), given.form)
        case _:
            name_one(command, given)
            if given.has(_ALL):
                return _all(given, "container.remove", _REMOVABLE)
            return change(given, "container.remove", confirm=True)


def _create(given: Given) -> int:
    if "name" not in given.params:
        raise UsageError("what is it to be called? container-create NAME IMAGE")
    settle_wishes(given)
    if "image" not in given.params:
        from ds01client.asking import at_terminal, choose_image  # noqa: PLC0415  # needed by people at a terminal only

        if at_terminal():
            choose_image(given, "the default")
    return change(given, "container.create", request_id=True)


#: In which states there is something to stop, to give back, to remove; the daemon has the last word on each.
_STOPPABLE = ("running", "starting")
_RELEASABLE = (*_STOPPABLE, "created", "stopped")
_REMOVABLE = (*_RELEASABLE, "parked", "stopping", "creating")


def _stop(command: Command, given: Given) -> int:
    if given.has(FORCE):
        if given.has(GRACE):
            raise UsageError("--force means at once, and --time gives it time: leave one of them out")
        given.params["grace_s"] = 0
    name_one(command, given)
    if given.has(_ALL):
        return _all(given, "container.stop", _RELEASABLE if "release" in given.params else _STOPPABLE)
    return change(given, "container.stop")


def _all(given: Given, method: str, states: tuple[str, ...]) -> int:
    from ds01client.every import change_all  # noqa: PLC0415  # needs threads and json, which one container does not

    return change_all(given, method, states)


def settle_wishes(given: Given) -> None:
    """What two options say together, and what a parameter is called otherwise."""
    image = given.options.get(IMAGE.name)
    if image is not None and len(given.operands) > 1:
        raise UsageError(f"two images, {given.operands[1]!r} and {image!r}: name one")
    if given.has(CPU_ONLY) and (both := [o.name for o in GPU_WISHES if given.has(o)]):
        raise UsageError(f"--cpu-only means no GPU, and {both[0]} asks for one: leave one of them out")
    network = given.options.get(NETWORK.name)
    if network not in (None, "host"):
        raise UsageError(f"--network expects host, and was given {network!r}; without it a container has its own")
    if network:
        given.params["network_host"] = True


def name_one(command: Command, given: Given) -> None:
    """See that a container is named, or all are meant; on a terminal, ask which one."""
    if given.has(_ALL):
        if given.operands:
            raise UsageError(f"--all means every one, and {given.operands[0]!r} is one: leave one of them out")
        return
    if "name" in given.params:
        return
    from ds01client.asking import choose_container  # noqa: PLC0415  # needed by people at a terminal only

    choose_container(command, given)


def change(given: Given, method: str, *, confirm: bool = False, request_id: bool = False) -> int:
    """Ask for a change and show what came of it; with `confirm`, show what it would be and ask before."""
    if confirm and not given.has(DRY_RUN) and not given.has(YES):
        from ds01client.asking import agreed  # noqa: PLC0415  # as above

        code = agreed(given, method)
        if code is not None:
            return code
    if request_id:
        given.params["request_id"] = posix.urandom(8).hex()
    try:
        return shown(call(method, given.params, show=given.form, patience_s=_PATIENCE_S, again=request_id), given.form)
    except KeyboardInterrupt:
        write(2, f"\n{GOES_ON.format(name=given.params.get('name', ''))}\n".encode())
        raise


#: Said when somebody stops waiting.
GOES_ON = "ds01d goes on with it: `container-list` shows how it stands, `container-why {name}` why"
