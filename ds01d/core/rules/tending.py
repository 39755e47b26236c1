"""What becomes due by itself, and what happens to a record that met a fault of ours."""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core.events import Stumbled, ThawRequested
from ds01d.core.moves import back_off, refuse_stranger
from ds01d.core.tx import Tx
from ds01d.model.container import Container, OrderName
from ds01d.model.errors import Denied, WrongPhase
from ds01d.model.ids import OperationId

#: So many faults in a row set a record aside.
FAULTS_MAX = 3
#: The longest pause after a fault; seconds.
PAUSE_MAX_S = 300.0
#: What no look can tell the outcome of: only the call's own return does, or the daemon's death.
_SETTLED_BY_RETURN = frozenset({OrderName.PERMIT, OrderName.WITHDRAW})


def container_due(tx: Tx, c: Container) -> None:
    """A pause is over, an answer is overdue, or a stop's grace has ended."""
    if c.cut_at is not None and c.cut_at <= tx.now:
        if c.engine_id is not None:
            tx.emit(do.CutSessions(engine_id=c.engine_id))
        c = tx.change(c, cut_at=None)
    if c.order is not None and not c.order.uncertain and c.order.deadline <= tx.now:
        overdue(tx, c)
    elif c.retry_at is not None and c.retry_at <= tx.now:
        tx.change(c, retry_at=None)


def overdue(tx: Tx, c: Container) -> None:
    """No answer in time: the world may still carry it out.

    The engine can be asked what is true. A write or a removal of ours cannot: it is settled by its own return alone, or
    a stuck one would land after its slot was given on.
    """
    assert c.order is not None
    if c.order.name in _SETTLED_BY_RETURN:
        tx.change(c, order=replace(c.order, uncertain=True))
    else:
        # What became of an order is looked at now; a look that failed before its time would come back at once for ever.
        again = c.order.name in {OrderName.LOOK, OrderName.KILL_GHOST} and tx.now < c.order.deadline
        pause_s = back_off(c.attempts, least=0.1) if again else 0.0
        tx.change(c, order=None, look=True, ghost=None, attempts=c.attempts + 1, retry_at=tx.now + pause_s)


def try_again(tx: Tx, c: Container) -> None:
    """A look or the end of a ghost did not come off: look again, later each time."""
    tx.change(c, ghost=None, look=True, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts))


def operation_due(tx: Tx, operation: OperationId) -> None:
    """A finished operation is forgotten after a day."""
    tx.put(tx.state.operations, operation, None)


def stumbled(tx: Tx, e: Stumbled) -> None:
    """A fault of ours hit this record: look at it afresh, later each time; three in a row set it aside."""
    c = tx.state.containers.get(e.container)
    if c is None:
        return
    faults = c.confused + 1
    frozen = faults >= FAULTS_MAX
    pause_s = back_off(faults - 1, most=PAUSE_MAX_S)
    # A write or a removal that is still under way must not be forgotten, or it lands after its slot was given on.
    writing = c.order is not None and c.order.name in _SETTLED_BY_RETURN and c.order.id != e.answered
    a = tx.state.allocation_of(c.id)
    if a is not None and a.deadline is not None and a.deadline <= tx.now:
        tx.claim(a, deadline=tx.now + pause_s)  # its end was what met the fault: it comes again
    tx.change(
        c,
        confused=faults,
        frozen=frozen,
        order=c.order if writing else None,
        look=c.engine_id is not None,
        retry_at=tx.now + pause_s,
        why=f"a fault of ours: {e.message}"[:200],
    )
    words = "set aside until `ds01ctl thaw`" if frozen else "looked at afresh"
    tx.emit(do.Alert(container=c.id, text=f"a fault in handling {c.name} of {c.user}: {words}"))


def thawed(tx: Tx, e: ThawRequested) -> None:
    """An operator takes a frozen record up again."""
    if not e.actor.operator:
        raise Denied("cannot thaw a record: only operators may")
    c = refuse_stranger(e.actor.uid, tx.state.containers.get(e.container), operator=True, name=str(e.container))
    if not c.frozen:
        raise WrongPhase(
            f"cannot thaw {c.name}: its record was not set aside", hint="`ds01ctl status` names those that are"
        )
    tx.change(c, frozen=False, confused=0, attempts=0, retry_at=None, look=c.engine_id is not None)
