"""Who may call a method, as values: each looks at the actor and at what he asks for, before anything is looked up."""

from typing import Protocol

import msgspec

from ds01d.api.params import Listing, Own
from ds01d.model.actor import Actor
from ds01d.model.errors import Denied, Invalid


class Access(Protocol):
    """A rule about callers."""

    #: For the documentation.
    words: str

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:
        """Let pass, or refuse."""
        ...


class Anyone:
    """Every account of this machine."""

    words = "anybody with an account"

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:
        """Let pass."""


class Self:
    """Acts for a person: oneself, or whom an operator names; root has to name one."""

    words = "for oneself; operators for anybody, root has to say for whom"

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:
        """Refuse who acts for somebody else, and a root who does not say for whom."""
        _for_whom(actor, wish)


class Owner:
    """About a container of one's own; operators about anybody's, root has to say whose."""

    words = "its owner, or an operator who names the owner"

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:
        """The same as for acting; whether it is there, the handler finds out among the owner's."""
        _for_whom(actor, wish)


class Everybodys:
    """One's own; everybody's for operators only."""

    words = "one's own; `all` for operators only"

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:
        """Refuse others' to who is no operator."""
        assert isinstance(wish, Listing)
        others = wish.all or (wish.user is not None and wish.user != actor.name)
        if others and not actor.operator:
            raise Denied("cannot show other people's: only operators may see it", hint="leave it out to see your own")


class Operator:
    """Operators only."""

    words = "operators"

    def __init__(self, instead: str = "operators are root and the members of the group ds01-admin") -> None:
        self._instead = instead

    def admit(self, actor: Actor, wish: msgspec.Struct) -> None:  # noqa: ARG002  # the shape of every rule
        """Refuse who is no operator."""
        if not actor.operator:
            raise Denied(f"cannot do this as {actor.name}: it is for operators", hint=self._instead)


def _for_whom(actor: Actor, wish: msgspec.Struct) -> None:
    if not isinstance(wish, Own):
        return
    named = wish.user
    if named is None and actor.uid == 0:
        raise Invalid("cannot tell for whom: root has to name a user", hint="name one with `--user NAME`")
    if named is not None and named != actor.name and not actor.operator:
        raise Denied(f"cannot act for {named}: you are {actor.name}", hint="only operators may name another user")


ANYONE = Anyone()
SELF = Self()
OWNER = Owner()
EVERYBODYS = Everybodys()
OPERATOR = Operator()
#: For operators, where others have a way of their own.
RELEASER = Operator("end a hold of your own with `container-stop NAME --release`")
