"""Which image somebody means, among those he may use. Own and local images only: nothing is pulled here."""

import difflib

from ds01d.model.errors import ImageNotFound, Invalid
from ds01d.model.ids import Uid
from ds01d.model.image import Image, own_reference, owner_of, shown

_SHOWN_MAX = 12
#: Nothing is pulled for users.
_MORE = "an operator can add others with `docker pull`"
_NONE = f"there are none yet; {_MORE}"


def usable(images: tuple[Image, ...], uid: Uid) -> tuple[Image, ...]:
    """One's own images, and those that no user built."""
    return tuple([i for i in images if owner_of(i.reference) in {None, uid}])


def resolve(wanted: str | None, name: str, images: tuple[Image, ...], uid: Uid, default: str | None) -> str:
    """The engine's name of the image that is meant; without a word, one's own that is called like the container."""
    there = {i.reference for i in usable(images, uid)}
    if wanted is None:
        own = own_reference(uid, name)
        if own in there:
            return own
        if default is None:
            raise Invalid(
                f"cannot tell which image {name} is to be made from: you have none called {name}-image",
                hint=_list(there) or _NONE,
            )
        wanted = default
    for candidate in _meanings(wanted, uid):
        if candidate in there:
            return candidate
    raise ImageNotFound(f"cannot find an image called {wanted}", hint=_near(wanted, there))


def _meanings(wanted: str, uid: Uid) -> tuple[str, ...]:
    """What a word may mean, the nearest first: one's own project, then the name as the engine has it."""
    project = wanted.removesuffix("-image")
    tagged = wanted if ":" in wanted.rpartition("/")[2] else f"{wanted}:latest"
    return own_reference(uid, project), wanted, tagged


def _near(wanted: str, there: set[str]) -> str:
    names = {shown(r): r for r in there}
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(near)}? {_MORE}"
    return _list(there) or _NONE


def _list(there: set[str]) -> str:
    if not there:
        return ""
    names = sorted({shown(r) for r in there})
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return f"images here: {', '.join(names[:_SHOWN_MAX])}{more}; {_MORE}"
