"""One request to the daemon and its answer: the fast path, so it imports next to nothing and decodes no JSON.

Python starts in 7 ms with `_socket` alone, in 16 ms with `json`: a command that shows what the daemon rendered needs
no more than is here. What an answer means is the caller's matter.
"""

import _socket
import posix
import sys
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Ours; the daemon says its own in each answer.
VERSION = "0.1.0"

#: The daemon cannot be reached, or what answers is not the daemon.
EXIT_UNREACHABLE = 69
#: The same as a number of JSON-RPC, of those it leaves to servers.
CODE_UNREACHABLE = -32000

_SOCKET = "/run/ds01/ds01d.sock"
_HEAD_MAX = 64 * 1024
_HEADS_MAX = 100
_BODY_MAX = 64 * 1024 * 1024
_DIGITS_MAX = 16
_EXIT_MAX = 255
#: A retried request gives the daemon this long to come back, in seconds.
_COMEBACK_S = 30.0
#: Waiting longer than this is remarked upon, in seconds.
_REMARK_S = 5.0


class Unreachable(Exception):
    """No daemon, or none that makes sense: the message is for people."""


class NotText(ValueError):
    """An argument that is not UTF-8 cannot be sent as JSON."""


class Unwritten(OSError):
    """What a command says cannot be written: the disk is full, or the caller closed where it was to go."""


class Broken(Exception):
    """The answer ended before it was complete."""


class Answer:
    """What the daemon said to one request."""

    __slots__ = ("body", "exit_code", "message", "version")

    def __init__(self, body: bytes, exit_code: int, version: str, message: str) -> None:
        #: To be shown: text or JSON, as asked for.
        self.body = body
        #: What the command is to end with.
        self.exit_code = exit_code
        #: The daemon's.
        self.version = version
        #: One more line for a person, or empty.
        self.message = message


def environment(name: str) -> str:
    """An environment variable, or nothing; `os` would cost a millisecond."""
    return posix.environ.get(name.encode(), b"").decode(errors="surrogateescape")


def socket_path() -> str:
    """Where the daemon listens."""
    return environment("DS01_SOCKET") or _SOCKET


def quote(text: str) -> str:
    """A JSON string. Control characters are escaped; what is not Unicode is refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotText("".join(["\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text])) from None
    return '"' + text.translate(_ESCAPES) + '"'


_ESCAPES = {n: f"\\u{n:04x}" for n in range(0x20)} | {ord('"'): '\\"', ord("\\"): "\\\\", 0x7F: "\\u007f"}


def encode(value: object) -> str:
    """A value as JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return quote(value)
        case list():
            return "[" + ",".join([encode(v) for v in value]) + "]"
        case dict():
            return "{" + ",".join([f"{quote(k)}:{encode(v)}" for k, v in value.items()]) + "}"
        case _:
            raise TypeError(f"cannot send {value!r}")


def call(
    method: str, params: dict[str, object], *, show: str = "text", patience_s: float = 60, again: bool = False
) -> Answer:
    """Ask the daemon. `again`: the request may be sent twice, so a daemon that restarts meanwhile is waited for."""
    body = f'{{"jsonrpc":"2.0","id":1,"method":{quote(method)},"params":{encode(params)}}}'.encode()
    heads = (
        f"POST /rpc HTTP/1.1\r\nHost: ds01\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\nDs01-Show: {show}\r\nDs01-Terminal: {_terminal()}\r\nDs01-Client: {VERSION}\r\n\r\n"
    )
    end = monotonic() + _COMEBACK_S
    tried = False
    while True:
        try:
            answer = _ask(heads.encode() + body, patience_s)
        except (Broken, Unreachable, ConnectionError) as e:
            # Once it was there, it may be restarting; if it never was, waiting helps nobody.
            gone = isinstance(e, Unreachable)
            if not again or (gone and not tried) or monotonic() > end:
                raise e if gone else Unreachable(_HALF) from None
            tried = True
            sleep(0.2)
        else:
            _compare(answer.version)
            return answer


_HALF = "ds01d broke off before it had answered\nwhat was asked may have been done all the same: see `container-list`"


def _terminal() -> str:
    """What the daemon has to know to lay out its text: width, and whether colour is welcome."""
    try:
        columns = posix.get_terminal_size(1).columns
    except OSError:
        return "colour=0"
    colour = not environment("NO_COLOR") and environment("TERM") != "dumb"
    return f"columns={columns}; colour={int(colour)}"


def connect(path: str) -> "_socket.socket":
    """A connection to one of the daemon's sockets."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except OSError as e:
        sock.close()
        why = (e.strerror or str(e)).lower()
        raise Unreachable(f"cannot reach ds01d at {path}: {why}\n{_LOOK}") from None
    return sock


_LOOK = "it may not be running: look with `systemctl status ds01d`, or tell an operator; running containers go on"


def _ask(request: bytes, patience_s: float) -> Answer:
    sock = connect(socket_path())
    try:
        sock.settimeout(patience_s)
        try:  # noqa: SIM105  # contextlib takes longer to import than all of this
            sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Refused before all was sent: the answer says why, if there is one.
        return _answer(Reader(sock, patience_s))
    finally:
        sock.close()


class Reader:
    """Takes an answer in piece by piece, within limits."""

    def __init__(self, sock: "_socket.socket", patience_s: float, *, remark: bool = True) -> None:
        self._sock = sock
        self._seen = bytearray()
        self._at = 0
        self._remarked = not remark or not posix.isatty(2)
        self.wait_for(patience_s)

    def wait_for(self, patience_s: float) -> None:
        """Give it so long from now."""
        self._end = monotonic() + patience_s
        self._sock.settimeout(min(patience_s, _REMARK_S))

    def line(self) -> bytes:
        """Up to the next line's end, without it."""
        while (end := self._seen.find(b"\r\n", self._at)) < 0:
            if len(self._seen) - self._at > _HEAD_MAX:
                raise Unreachable(STRANGE)
            self._more()
        line = bytes(self._seen[self._at : end])
        self._at = end + 2
        return line

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        if size > _BODY_MAX:
            raise Unreachable(STRANGE)
        while len(self._seen) - self._at < size:
            self._more()
        self._at += size
        return bytes(self._seen[self._at - size : self._at])

    def _more(self) -> None:
        try:
            piece = self._sock.recv(262144)
        except TimeoutError:
            self._wait()
            return
        if not piece:
            raise Broken
        self._seen += piece

    def _wait(self) -> None:
        if monotonic() > self._end:
            raise Unreachable(f"ds01d does not answer\n{_LOOK}")
        if not self._remarked:
            self._remarked = True
            sys.stderr.write("still waiting for ds01d; Ctrl-C stops the waiting, not what was asked\n")


STRANGE = f"what answers there is not ds01d\ncheck DS01_SOCKET, or unset it to use {_SOCKET}"


def _answer(reader: Reader) -> Answer:
    heads = head(reader)
    if heads.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b"".join(chunks(reader))
    else:
        body = reader.exactly(_number(heads.get(b"content-length", b"0"), 10))
    exit_code = _number(heads.get(b"ds01-exit", b""), 10)
    if exit_code > _EXIT_MAX:
        raise Unreachable(STRANGE)
    version = heads.get(b"ds01-version", b"").decode(errors="replace")
    return Answer(body, exit_code, version, _percent_decoded(heads.get(b"ds01-message", b"")))


def head(reader: Reader) -> dict[bytes, bytes]:
    """The headers of an answer, their names in small letters."""
    if not reader.line().startswith(b"HTTP/1."):
        raise Unreachable(STRANGE)
    heads: dict[bytes, bytes] = {}
    while line := reader.line():
        name, _, value = line.partition(b":")
        heads[name.strip().lower()] = value.strip()
        if len(heads) > _HEADS_MAX:
            raise Unreachable(STRANGE)
    return heads


def chunks(reader: Reader, bytes_max: float = _BODY_MAX) -> "Iterator[bytes]":
    """The pieces of a body whose length nobody knew beforehand."""
    total = 0
    while size := _number(reader.line().partition(b";")[0], 16):
        yield reader.exactly(size)
        total += size
        if total > bytes_max or reader.line():
            raise Unreachable(STRANGE)
    while reader.line():
        pass


def _number(text: bytes, base: int) -> int:
    """A number of the protocol: digits and nothing else, though `int` would take signs, underscores and `0x`."""
    if not text.isalnum() or b"x" in text.lower() or len(text) > _DIGITS_MAX:
        raise Unreachable(STRANGE)
    try:
        return int(text, base)
    except ValueError:
        raise Unreachable(STRANGE) from None


def _percent_decoded(text: bytes) -> str:
    first, *rest = text.split(b"%")
    decoded = bytearray(first)
    for part in rest:
        try:
            decoded += bytes.fromhex(part[:2].decode("ascii")) + part[2:]
        except ValueError:
            decoded += b"%" + part
    return decoded.decode(errors="replace")


_compared = False


def _compare(version: str) -> None:
    """Old and new may not understand each other: say so before anything looks odd, once."""
    global _compared  # noqa: PLW0603  # one command makes many requests
    if not _compared and version and version.partition(".")[0] != VERSION.partition(".")[0]:
        what = f"these commands are version {VERSION}, the daemon is {version}"
        _compared = True
        sys.stderr.write(f"{what}: they may not understand each other, tell an operator\n")


def write(descriptor: int, data: bytes) -> None:
    """Write all of it; a reader who has gone is a `BrokenPipeError`, as ever."""
    try:
        while data:
            data = data[posix.write(descriptor, data) :]
    except BrokenPipeError:
        raise
    except OSError as e:
        raise Unwritten(e.errno, e.strerror) from None


def error_json(kind: str, code: int, message: str, hint: str, exit_code: int) -> str:
    """An error that the daemon has not seen, in the shape of its own."""
    what = {"code": code, "kind": kind, "message": message, "hint": hint, "exit_code": exit_code}
    return f'"error":{encode(what)}'


def shown(answer: Answer, form: str) -> int:
    """Data to stdout, messages to stderr; the exit code that goes with it."""
    if answer.message:
        write(2, f"{answer.message}\n".encode())
    write(1 if answer.exit_code == 0 or form == "json" else 2, answer.body)
    return answer.exit_code
