"""The base of all parameters: an unknown name is an error, and every text and number has a bound."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters by name, strict."""


class Nothing(Params, frozen=True, kw_only=True):
    """No parameters."""


_TEXT = r"^[^\x00-\x1f\x7f]*$"
_ID = r"^[A-Za-z0-9_.:-]*$"
_SIZE = r"^[0-9]{1,6}(\.[0-9]{1,3})?[kKmMgGtT]i?[bB]?$"
#: What each pattern means, for people.
FORMS = {
    _TEXT: "text without control characters",
    _ID: "letters, digits and the signs _ . : - only",
    _SIZE: "a size such as 20g or 512M",
}
#: A container's, a user's, an image's name. What may be in it, the rule for it judges.
Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=_TEXT)]
#: An id that we gave out before.
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=_ID)]
DirectoryPath = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_TEXT)]
#: As people write it: `20g`, `512M`.
Size = Annotated[str, Meta(pattern=_SIZE, description="a size such as 20g")]
Seconds = Annotated[float, Meta(ge=0, le=86400)]
#: How long a caller is kept waiting, at most.
Patience = Annotated[float, Meta(ge=0, le=600, description="how long to wait for the end; 0: answer at once")]
Rows = Annotated[int, Meta(ge=1, le=2000)]


class Own(Params, frozen=True, kw_only=True):
    """About something of one's own, or of whom an operator names."""

    user: Annotated[Word | None, Meta(description="for operators: whose")] = None


class Changing(Own, frozen=True, kw_only=True):
    """What all requests share that change something."""

    request_id: Annotated[
        Id | None, Meta(description="a word of the caller's own: the same again is the same request")
    ] = None
    dry_run: Annotated[bool, Meta(description="say what would be done, and change nothing")] = False
    wait_s: Patience | None = None


class Listing(Params, frozen=True, kw_only=True):
    """Which ones to show: one's own, for operators everybody's or one user's; root sees everybody's."""

    all: Annotated[bool, Meta(description="for operators: everybody's")] = False
    user: Annotated[Word | None, Meta(description="for operators: this user's")] = None


_FACTOR = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size_bytes(size: Size) -> int:
    """A size as people write it, in bytes."""
    number = size.lower().removesuffix("b").removesuffix("i")
    return int(float(number[:-1]) * _FACTOR[number[-1]])
