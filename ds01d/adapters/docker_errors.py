"""The engine's errors made readable: behind five nested prefixes one sentence says what went wrong. Pure."""

import re
from typing import Final

#: The guard's own words (native/guard.c); they are the reason, whatever the engine put around them.
GUARD: Final = "ds01: cannot start: "

#: What the engine, containerd and runc put before the reason, outermost first.
_PREFIX: Final = re.compile(
    r"""(?:
        (?:failed\ to\ create|error\ creating|failed\ to\ start)\ (?:shim\ )?task(?:\ for\ container)?
      | failed\ to\ set\ up\ container\ networking
      | (?:OCI\ runtime|runc)\ (?:create|start|exec)\ failed
      | runc\ did\ not\ terminate\ successfully
      | container_linux\.go:\d+
      | starting\ container\ process\ caused
      | (?:process_linux|rootfs_linux)\.go:\d+
      | container\ init\ caused
      | unable\ to\ start\ container\ process
      | error\ during\ container\ init
      | Error\ response\ from\ daemon
      | error\ running\ (?:\w+\ )?hook(?:\ \#\d+)?
      | (?:Cannot|cannot)\ (?:start|stop|kill|restart|remove)\ container\ [0-9a-f]{64}
    ):\s*""",
    re.VERBOSE,
)
_HOOK_OUTPUT: Final = re.compile(r"exit status \d+, stdout: (.*?), stderr: (.*)", re.DOTALL)
_UNKNOWN: Final = re.compile(r"(?::\s*unknown)+\s*$")
_CHARS_MAX: Final = 500

#: The guard names the place inside, dockerd and runc name the directory on the host.
_DIRECTORY_LOST: Final = (
    (re.compile(GUARD + r"(/.*?) is not the directory that was checked"), "was replaced by another directory"),
    (re.compile(r"bind source path does not exist: (/.*?)\s*$"), "is gone"),
    (re.compile(r'error mounting "([^"]+)" to rootfs at .*not a directory', re.DOTALL), "is no directory any more"),
)

_STALE_TASK: Final = ("id already exists", "already exists: unknown", "task already exists", "container with id exists")
#: The directory of a task whose engine died before its runtime answered (seen on 26.1.5 with a hook that hung).
_STALE_DIRECTORY: Final = re.compile(r"mkdir \S*/io\.containerd\.runtime\.\S+: file exists")


def readable(message: str) -> str:
    """The sentence that says what went wrong, in one line of at most 500 characters."""
    text = _UNKNOWN.sub("", " ".join(message.split()))
    if GUARD in text:
        return text[text.rindex(GUARD) + len(GUARD) :][:_CHARS_MAX]
    while (match := _PREFIX.match(text)) is not None and match.end() < len(text):
        text = text[match.end() :]
    if (hook := _HOOK_OUTPUT.fullmatch(text)) is not None and hook[2].strip(" ,"):
        text = hook[2].strip(" ,")
    return text[:_CHARS_MAX] or "the engine gave no reason"


def permission_lags(message: str) -> bool:
    """Whether the engine's view of a permission may be the reason, which runs a moment behind our writes."""
    return "unresolvable CDI device" in message or f"{GUARD}stale generation" in message


def directory_moved(message: str) -> bool:
    """Whether the guard found another directory under a mount, or the same one on a file system mounted anew."""
    return GUARD in message and "is not the directory that was checked" in message


def directory_lost(message: str) -> str | None:
    """Which of the directories of a container kept it from starting, as the engine names it, and what became of it."""
    for pattern, what in _DIRECTORY_LOST:
        if (found := pattern.search(message)) is not None:
            return f"{found[1]} {what}"[:_CHARS_MAX]
    return None


def is_paused(message: str) -> bool:
    """Whether the engine will not do it because it holds the container's processes still."""
    return "is paused" in message and "unpause" in message


def task_left_over(message: str) -> bool:
    """Whether an engine that died in the middle of a start left something behind that refuses the next one."""
    text = message.lower()
    return any(sign in text for sign in _STALE_TASK) or _STALE_DIRECTORY.search(text) is not None
