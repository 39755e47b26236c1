"""From a command's name to its module, and from whatever happens in there to an exit code. Knows no arguments."""

import posix

from ds01client.options import Declined, UsageError
from ds01client.wire import CODE_UNREACHABLE, EXIT_UNREACHABLE, NotText, Unreachable, Unwritten, error_json, write

#: The module of each command; only that one is imported.
MODULES = {
    "container-cleanup": "containers",
    "container-create": "containers",
    "container-exec": "shells",
    "container-list": "containers",
    "container-remove": "containers",
    "container-run": "shells",
    "container-start": "containers",
    "container-stop": "containers",
    "container-why": "containers",
    "ds01-run": "throwaway",
    "ds01ctl": "control",
}

_EXIT_UNWRITTEN = 1
_EXIT_USAGE = 2
#: JSON-RPC's number for parameters that cannot be meant.
_CODE_USAGE = -32602
_EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141
#: `container-exec` must not be mistaken for the command that it ran.
_EXIT_OWN_FAILURE = {"container-exec": 125}


def launch(names: list[str], words: list[str]) -> int:
    """Run the command that goes by one of these names; its exit code."""
    name = next((n for n in names if n in MODULES), "")
    if not name:
        return _say(f"there is no command {names[0]}; `container help` lists what there is", _EXIT_USAGE)
    try:
        module = __import__(f"ds01client.{MODULES[name]}", fromlist=["main"])
        code = module.main(name, words)
        assert isinstance(code, int)
    except UsageError as e:
        hint = e.hint or f"`{_spoken(name, words)} --help` shows what it takes"
        code = _fail(words, f"{name}: {e}", hint, ("usage", _CODE_USAGE, _EXIT_USAGE))
    except NotText as e:
        why = f"{name}: {e} is not UTF-8 text, and nothing else can be sent"
        code = _fail(words, why, "rename it, or set a UTF-8 locale", ("usage", _CODE_USAGE, _EXIT_USAGE))
    except Unreachable as e:
        message, _, hint = str(e).partition("\n")
        code = _fail(words, message, hint, ("unreachable", CODE_UNREACHABLE, EXIT_UNREACHABLE))
    except Declined as e:
        code = _say(str(e), e.exit_code)
    except Unwritten as e:
        code = _say(f"{name}: cannot write its output: {(e.strerror or str(e)).lower()}", _EXIT_UNWRITTEN)
    except BrokenPipeError:
        return _EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return _interrupted()
    else:
        return code
    return _EXIT_OWN_FAILURE.get(name, code)


def _interrupted() -> int:
    """End of SIGINT itself, so that a loop in a shell ends too."""
    import signal  # noqa: PLC0415  # slow to import, and rarely needed

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    posix.kill(posix.getpid(), signal.SIGINT)
    return _EXIT_INTERRUPTED


def _spoken(name: str, words: list[str]) -> str:
    """`ds01ctl` takes a verb first, and each verb has a help of its own."""
    return f"{name} {words[0]}" if name == "ds01ctl" and words and words[0].isalpha() else name


def _fail(words: list[str], message: str, hint: str, what: tuple[str, int, int]) -> int:
    """To a person in words; to a script that wants JSON in the daemon's own shape. `what`: kind, code, exit code."""
    kind, code, exit_code = what
    options = words[: words.index("--")] if "--" in words else words
    if "--json" not in options:
        return _say(f"{message}\nhint: {hint}" if hint else message, exit_code)
    try:
        write(1, f"{{{error_json(kind, code, message, hint, exit_code)}}}\n".encode())
    except OSError as e:
        return _say(f"{message}\ncannot write that as JSON: {(e.strerror or str(e)).lower()}", exit_code)
    return exit_code


def _say(text: str, code: int) -> int:
    try:
        posix.write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        return code  # Nobody listens any more; the code still tells.
    return code
