"""Reads events.jsonl from its end, in bounded memory. A torn line is passed over: we may have died while writing it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ds01d.adapters.recorder_format import read_event
from ds01d.model.chronicle import EventLine

_BLOCK_BYTES = 1 << 16
#: A longer line is none of ours.
_LINE_BYTES_MAX = 1 << 20
#: Lines given at most, whatever was asked for.
_LIMIT_MAX = 10_000
#: Seconds by which lines may be out of order: the clock is set back now and then.
_DISORDER_S = 3600.0


def newest_events(
    files: tuple[Path, ...],
    wanted: Callable[[EventLine], bool],
    *,
    since: float | None,
    until: float | None,
    limit: int,
) -> tuple[EventLine, ...]:
    """The newest so many wanted lines of these files, newest file first; the oldest of the lines comes first."""
    found: list[EventLine] = []
    limit = min(limit, _LIMIT_MAX)
    for text in _backwards(files):
        if len(found) >= limit:
            break
        line = read_event(text)
        if line is None or (until is not None and line.at > until):
            continue
        if since is not None and line.at < since:
            if line.at < since - _DISORDER_S:
                break
            continue
        if wanted(line):
            found.append(line)
    return tuple(reversed(found))


def _backwards(files: tuple[Path, ...]) -> Iterator[bytes]:
    """Every line, the last one first."""
    for path in files:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            yield from _lines_backwards(fd)
        finally:
            os.close(fd)


def _lines_backwards(fd: int) -> Iterator[bytes]:
    end = os.fstat(fd).st_size
    tail = b""
    overlong = False
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        parts = (os.pread(fd, end - begin, begin) + tail).split(b"\n")
        if overlong and len(parts) > 1:
            parts.pop()
            overlong = False
        end = begin
        tail = parts[0]
        yield from (part for part in reversed(parts[1:]) if part)
        if len(tail) > _LINE_BYTES_MAX or overlong:
            tail, overlong = b"", True
    if tail and not overlong:
        yield tail
