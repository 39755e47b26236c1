"""One line in the log for each call. Those of one turn of the event loop are written together, when it has turned."""

import asyncio
from typing import NamedTuple

from ds01d.logs import log
from ds01d.model.actor import Actor


class Note(NamedTuple):
    """What came of a call."""

    actor: Actor
    method: str
    #: Of the refusal; "ok" where there was none.
    kind: str
    took_s: float


class Notes:
    """What is to be written yet; an answer may be out before its line is.

    A line costs 10 us where the next one follows it, and 40 where a call comes in between.
    """

    def __init__(self) -> None:
        self._kept: list[Note] = []

    def keep(self, note: Note) -> None:
        """Have it written when the event loop has turned."""
        if not self._kept:
            asyncio.get_running_loop().call_soon(self._write)
        self._kept.append(note)

    def _write(self) -> None:
        kept, self._kept = self._kept, []
        for actor, method, kind, took_s in kept:
            log.info(
                "rpc.answered",
                method=method[:80],
                user=actor.name,
                uid=actor.uid,
                login_uid=actor.login_uid,
                operator=actor.operator,
                kind=kind,
                ms=round(took_s * 1000, 1),
            )
