"""A moment in the past as people write it: how long ago, or when, on this host's clock."""

import re
from datetime import UTC, datetime

from ds01d.model.errors import Invalid

_AGO = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,8})s)?(?: ago)?")
_SECONDS = (86400, 3600, 60, 1)


def parse(text: str, now: float) -> float:
    """Epoch seconds of `2h`, `1d12h`, `2026-11-20` or `2026-11-20T14:20`; without a zone it is this host's."""
    ago = _AGO.fullmatch(text)
    if ago is not None and any(ago.groups()):
        return now - sum(int(n) * s for n, s in zip(ago.groups(default="0"), _SECONDS, strict=True))
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.astimezone()).timestamp()
    except (ValueError, OverflowError, OSError):
        today = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        raise Invalid(f"cannot understand the time {text!r}", hint=f"write 2h, 3d, {today} or {today}T14:20") from None
