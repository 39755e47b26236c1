"""Who is asking, as the kernel says; made once per connection and passed down."""

import msgspec

from ds01d.model.ids import Uid


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of a request."""

    uid: Uid
    gid: int
    name: str
    groups: tuple[str, ...] = ()
    #: Root of the host or a member of `ds01-admin`, proved as product.md §11 asks.
    operator: bool = False
    pid: int = 0
    #: The login uid, which sees through sudo; for the log only.
    login_uid: int | None = None


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The user for whom something is made: the actor, or whom an operator names."""

    uid: Uid
    gid: int
    name: str
    home: str
    #: Names of the Unix groups, for `@unixgroup` members of the policy.
    groups: tuple[str, ...] = ()
