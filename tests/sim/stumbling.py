"""A fault of ours in the way of an event: what the loop makes of it. The event is lost, and its record stumbles."""

from ds01d.core import events as ev
from ds01d.core.state import State
from ds01d.model.ids import AllocationId, ContainerId


def stumble(state: State, event: ev.Event, now: float) -> ev.Stumbled | None:
    """What comes of an event whose handling meets a fault; None: no record is handled by it."""
    match event:
        case ev.Done() | ev.Failed() | ev.Uncertain() | ev.Looked():
            c = state.containers.get(event.container)
            if c is None or c.order is None or c.order.id != event.order:
                return None
            over = None if isinstance(event, ev.Uncertain) else event.order
            return ev.Stumbled(container=c.id, message="a fault", answered=over)
        case ev.EngineHinted():
            c = state.containers.one("engine_id", event.engine_id)
            return None if c is None else ev.Stumbled(container=c.id, message="a fault")
        case ev.Woke():
            # What was due is not due a second time, unless the record says so.
            table, key = state.pop_due(now) or ("", "")
            a = state.allocations.get(AllocationId(key))
            met = ContainerId(key) if table == "containers" else a.container if a is not None else None
            return None if met is None else ev.Stumbled(container=met, message="a fault")
        case _:
            return None
