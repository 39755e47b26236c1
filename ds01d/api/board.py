"""The slots as they are shown, made anew when something has changed: many ask, and little happens between.

What is on it is what `views.slots` says of the state at this moment, always; it only saves saying it again.
"""

from ds01d.core.state import Sight, State
from ds01d.core.views.slots import SlotView, in_order, slot_view
from ds01d.model.actor import Actor
from ds01d.model.gpu import Slot
from ds01d.model.ids import Uid
from ds01d.model.policy import Policy

#: Sees what everybody may see, and has nothing.
_STRANGER = Actor(uid=Uid(-1), gid=-1, name="", operator=False)


class Board:
    """All slots, by card and place."""

    def __init__(self) -> None:
        #: Of which state: every change of a record raises the revision, sight and policy are replaced as a whole.
        self._of: tuple[State, int, Sight, Policy] | None = None
        self._slots: list[Slot] = []
        self._views: tuple[SlotView, ...] = ()

    def slots(self, state: State, actor: Actor) -> tuple[SlotView, ...]:
        """Every slot of the machine, as this reader may see it."""
        if actor.operator:
            return tuple([slot_view(state, slot, actor) for slot in in_order(state)])
        if not self._is_of(state):
            self._of = state, state.revision, state.sight, state.policy
            self._slots = in_order(state)
            self._views = tuple([slot_view(state, slot, _STRANGER) for slot in self._slots])
        his = {slot for a in state.allocations.of("uid", actor.uid) for slot in a.slots}
        if not his:
            return self._views
        shown = zip(self._slots, self._views, strict=True)
        return tuple([slot_view(state, slot, actor) if slot.id in his else view for slot, view in shown])

    def _is_of(self, state: State) -> bool:
        if self._of is None:
            return False
        before, revision, sight, policy = self._of
        return before is state and revision == state.revision and sight is state.sight and policy is state.policy
