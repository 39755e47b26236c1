"""Whose a container is that we did not make: by the uid in AIME's names, then by the uid of its first process.

A label alone proves nothing, and root in a container may be anybody: unknown stays unknown. Users' directories, which
would tell more, are not looked at here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.procfs import Procfs
from ds01d.model.ids import EngineId, Uid

#: `mlc create` names its containers so, whatever the label says (the uid is of whoever really made it).
_AIME_NAME: Final = re.compile(r".+\._\.(0|[1-9][0-9]{0,9})")
#: More processes than these are not looked at for the first one.
_PROCESSES_MAX: Final = 64


class Attribution:
    """Uids of containers' makers, each process looked at once in a run; `name_of` gives a uid's name where known."""

    def __init__(self, procfs: Procfs, cgroups: Cgroups, name_of: Callable[[Uid], str | None]) -> None:
        self._procfs = procfs
        self._cgroups = cgroups
        self._name_of = name_of
        #: Of the first process of a container in the run that goes on.
        self._first: dict[EngineId, Uid] = {}

    def look(self, running: Mapping[EngineId, str]) -> None:
        """Look at those that run, by their cgroups. Blocks."""
        known = {engine_id: uid for engine_id, uid in self._first.items() if engine_id in running}
        for engine_id, path in running.items():
            if engine_id not in known and (uid := self._uid_of_first(path)) is not None:
                known[engine_id] = uid
        self._first = known

    def user(self, engine_id: EngineId, name: str, labels: Mapping[str, str]) -> str | None:
        """Whose it is, where that is known."""
        match = _AIME_NAME.fullmatch(name)
        if match is not None and any(label.startswith("aime.mlc") for label in labels):
            return self._name_of(Uid(int(match[1]))) if match[1] != "0" else None
        uid = self._first.get(engine_id)
        return self._name_of(uid) if uid is not None and uid != 0 else None

    def _uid_of_first(self, path: str) -> Uid | None:
        try:
            pids = self._cgroups.members(path)[:_PROCESSES_MAX]
        except (OSError, ValueError):
            return None
        found = [process for pid in pids if (process := self._procfs.process(pid)) is not None]
        return min(found, key=lambda process: (process.start_time, process.pid)).uid if found else None
