"""How people write times and sizes, both ways. A bare number is never guessed at, and 0 is not the same as never."""

import re

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(
    r"(?:([0-9]+(?:\.[0-9]+)?)d)?(?:([0-9]+(?:\.[0-9]+)?)h)?(?:([0-9]+(?:\.[0-9]+)?)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?"
)
#: Binary, as Docker counts: 1k is 1024.
_BYTES = {"t": 1 << 40, "g": 1 << 30, "m": 1 << 20, "k": 1 << 10}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt])(?:i?b)?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
#: A century, and as many bytes as no machine has: beyond is a slip of the finger.
_SECONDS_MAX = 36525 * 86400.0
_BYTES_MAX = 1 << 60


def parse_duration(text: str, unit: str = "h") -> float:
    """Seconds of `90s`, `30m`, `48h`, `7d`, `1h30m`; 0 is at once. Raises ValueError in words.

    `unit` is the one that a bare number most likely meant.
    """
    words = text.strip().lower()
    if words.startswith("-"):
        raise ValueError(f"`{text}` is negative: a time is 0 or more")
    if _NUMBER.fullmatch(words):
        if float(words) == 0:
            return 0.0
        raise ValueError(f"`{text}` has no unit: write `{words}{unit}` if that was meant (s, m, h and d are known)")
    match = _DURATION.fullmatch(words)
    if not words or match is None:
        raise ValueError(f"`{text}` is no duration: write it like `90s`, `30m`, `48h`, `7d` or `1h30m`")
    seconds = sum(float(n) * _SECONDS[u] for n, u in zip(match.groups(), "dhms", strict=True) if n is not None)
    if seconds > _SECONDS_MAX:
        raise ValueError(f"`{text}` is more than a hundred years")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest way to write it that `parse_duration` reads back, to the second."""
    left = round(seconds)
    parts = []
    for unit, size in _SECONDS.items():
        count, left = divmod(left, int(size))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Bytes of `32g`, `512M`, `1.5T`, `40GiB`; binary units throughout. Raises ValueError in words."""
    words = text.strip()
    if words.startswith("-"):
        raise ValueError(f"`{text}` is negative: a size is more than 0")
    if _NUMBER.fullmatch(words):
        raise ValueError(f"`{text}` has no unit: write `{words}g` or `{words}M` if that was meant")
    match = _SIZE.fullmatch(words)
    if match is None:
        raise ValueError(f"`{text}` is no size: write it like `32g` or `512M`")
    size = int(float(match[1]) * _BYTES[match[2].lower()])
    if not 0 < size <= _BYTES_MAX:
        raise ValueError(f"`{text}` is no size that a machine could have")
    return size


def format_size(size: int) -> str:
    """A size in its largest fitting unit, with one digit after the point where it does not come out even."""
    for unit, factor in _BYTES.items():
        if size >= factor:
            amount = size / factor
            return f"{amount:.0f}{unit}" if amount == int(amount) else f"{amount:.1f}{unit}"
    return f"{size}b"
