"""The terminal of whoever sits there: raw while a shell is open in it, and as it was afterwards, whatever happened."""

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: What ends us: said to the shell by closing its connection, and then done.
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
#: More than this the daemon takes for a mistake.
_SIZE_MAX = 2000


class Signalled(BaseException):
    """A signal asked this command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def size() -> tuple[int, int]:
    """Rows and columns, as far as any of our three descriptors is a terminal."""
    for descriptor in (1, 0, 2):
        with suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if rows and columns:
                return min(rows, _SIZE_MAX), min(columns, _SIZE_MAX)
    return 24, 80


@contextmanager
def ending_signals() -> Iterator[None]:
    """Turn the signals that end a command into an exception, so that everything is put back on the way out."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Signalled(number)

    # What is ignored stays ignored: nohup means it.
    before = {n: signal.getsignal(n) for n in _ENDS}
    taken = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def die_of(number: int) -> int:
    """End as the signal would have ended us, so that a calling shell sees it; the exit code if that fails."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Pass every key on as it is typed; what was typed before stays."""
    saved = termios.tcgetattr(descriptor)
    wanted = _raw(saved)

    def suspend(number: int, _frame: FrameType | None) -> None:
        # Sent from elsewhere: ctrl-z is a key like any other in here.
        _put(descriptor, saved)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def resume(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, suspend)
        _put(descriptor, wanted)
        signal.raise_signal(signal.SIGWINCH)  # It may have another size by now.

    before = {n: signal.getsignal(n) for n in (signal.SIGTSTP, signal.SIGCONT)}
    try:
        signal.signal(signal.SIGTSTP, suspend)
        signal.signal(signal.SIGCONT, resume)
        _put(descriptor, wanted)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _put(descriptor, saved)


def _put(descriptor: int, attributes: "list[int | list[bytes | int]]") -> None:
    # TCSADRAIN would wait for a terminal that takes no output; TCSAFLUSH would lose what was typed ahead.
    with suppress(termios.error):  # It hung up: there is nothing left to put right.
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _raw(attributes: "list[int | list[bytes | int]]") -> "list[int | list[bytes | int]]":
    """As cfmakeraw(3) does it."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    assert isinstance(iflag, int)
    assert isinstance(oflag, int)
    assert isinstance(cflag, int)
    assert isinstance(lflag, int)
    assert isinstance(characters, list)
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
