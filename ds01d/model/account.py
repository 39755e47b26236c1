"""A Unix account, and what it means when none is found. Asking NSS is the adapter's matter."""

from enum import StrEnum

import msgspec

from ds01d.model.ids import Uid


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One account, as NSS has it."""

    uid: Uid
    gid: int
    name: str
    home: str


class Missing(StrEnum):
    """Why a look-up gave nothing: the two are never confused."""

    #: NSS answered: there is none.
    NO_SUCH = "no such"
    #: NSS did not answer in time; nothing may be concluded.
    SILENT = "silent"
