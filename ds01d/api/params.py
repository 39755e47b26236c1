"""The base of all parameters: an unknown name is an error, and every text and number has a bound."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters by name, strict."""


class Nothing(Params):
    """No parameters."""


#: A container's, a user's, an image's name. What is in it, its owner's rule judges.
Word = Annotated[str, Meta(min_length=1, max_length=255)]
