"""An image on the engine, as far as somebody may make a container from it."""

import re

import msgspec

from ds01d.model.ids import Uid

_OWN = re.compile(r"ds01-([0-9]+)/(.+)")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One name of an image on the engine."""

    #: As the engine knows it, tag included: `ds01-1001/vision-image:latest`, `python:3.12`.
    reference: str
    #: Who built it; None: it came from outside.
    owner: Uid | None = None
    size_bytes: int = 0
    created_at: float = 0.0


def owner_of(reference: str) -> Uid | None:
    """The user who built an image, which its name says; None: nobody here did."""
    own = _OWN.fullmatch(reference)
    return Uid(int(own[1])) if own is not None else None


def own_reference(uid: Uid, project: str) -> str:
    """The engine's name for a user's own image, made so that two users' do not collide."""
    return f"ds01-{uid}/{project}-image:latest"


def shown(reference: str) -> str:
    """An image's name as people read it: without the owner's uid, and without a tag that says nothing."""
    own = _OWN.fullmatch(reference)
    return (own[2] if own is not None else reference).removesuffix(":latest")
