"""The circle: event → core → save → act. The only caller of the core, and it never waits for the disk.

Everything that happens is put into one inbox. The loop takes it in, one event after the other, and the core answers
with changes and effects. Those rest on a revision of the state. They are kept back, in order, until a save of that
revision or a later one has succeeded: so whatever the world was asked to do, the ledger on disk knew of it before.
While one save is under way the core goes on, and the next save takes all that has gathered meanwhile.

A look changes nothing and is let go at once. When the disk does not take the state, the door refuses every change, no
deadline fires, observations and answers are still taken in, and the newest snapshot is tried again.

Not in here: what any event means (the core), and how anything is done (the hands).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from ds01d.core import laws
from ds01d.core.core import Outcome, handle
from ds01d.core.effects import Alert, CutSessions, Effect, Finished, LookAt, Order, Relist, Tell
from ds01d.core.events import Done, Event, Failed, Looked, Request, Stumbled, Woke
from ds01d.core.settling import unreviewed
from ds01d.core.snapshot import dump
from ds01d.core.state import State
from ds01d.logs import log
from ds01d.loop.chronicle import Line, lines_of, refusal_lines
from ds01d.loop.port import Preview
from ds01d.loop.runner import Runner
from ds01d.loop.watch import Watch
from ds01d.loop.world import Clock, Notes, Saver
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container
from ds01d.model.errors import Bug, CannotSave, NotFound, Pending, Recovering, TooMany
from ds01d.model.ids import ContainerId, OperationId
from ds01d.model.operation import Operation, OperationState

#: A save that takes longer (seconds) counts as failing: nothing new is decided on a disk that hangs.
SAVE_SLOW_S = 5.0
#: Start-up waits no longer for what waits for a disk that has taken nothing for so long; seconds.
DISK_WAIT_S = 2.0
#: Requests waiting in the inbox; more are refused.
INBOX_MAX = 4096
#: The loop turns at least so often (seconds), which feeds the watchdog.
TURN_MAX_S = 5.0
#: The whole state is judged by its laws so often (seconds).
CHECK_S = 600.0
#: Retries of a failed save; seconds.
RETRY_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class _Kept(msgspec.Struct, kw_only=True):
    """What waits for a save of its revision."""

    revision: int
    effects: list[Effect]
    lines: list[Line]
    touched: dict[ContainerId, str] = {}
    reply: "asyncio.Future[Operation | Preview | None] | None" = None
    operation: OperationId | None = None


async def _nothing_to_prepare(_: Request) -> None:
    """A request may be taken in at once."""


class Loop:
    """One state, one writer."""

    def __init__(
        self,
        state: State,
        *,
        clock: Clock,
        saver: Saver,
        runner: Runner,
        notes: Notes,
        turned: Callable[[], None] = lambda: None,
        prepare: Callable[[Request], Awaitable[None]] = _nothing_to_prepare,
    ) -> None:
        self._state = state
        self._clock = clock
        self._saver = saver
        self._runner = runner
        self._notes = notes
        self._turned = turned
        #: What a request waits for before it is taken in, and no longer than a few seconds.
        self._prepare = prepare
        self._inbox: deque[tuple[Event, asyncio.Future[Operation | Preview | None] | None]] = deque()
        self._awake = asyncio.Event()
        self._kept: deque[_Kept] = deque()
        self._saved = state.revision
        self._saving: asyncio.Future[None] | None = None
        self._saving_revision = 0
        self._unsaved_at: float | None = None
        self._failures = 0
        self._retry_at: float | None = None
        self._waiting: dict[OperationId, list[asyncio.Future[None]]] = {}
        self._unreleased: set[OperationId] = set()
        self._watchers: set[Watch] = set()
        self._checked_at = clock.now()
        #: Set while the state could not be loaded: reads only.
        self.recovering: str | None = None
        runner.bind(self.post)

    # ---- the doors' side (`Mind`)

    @property
    def state(self) -> State:
        """For views, read only; never kept over an await."""
        return self._state

    @property
    def unsaved_since(self) -> float | None:
        """Since when the disk does not take the state; epoch seconds."""
        if self._unsaved_at is None:
            return None
        late = self._clock.now() - self._unsaved_at > SAVE_SLOW_S
        return self._unsaved_at if self._failures or late else None

    def now(self) -> float:
        """Epoch seconds of the daemon's own steady clock."""
        return self._clock.now()

    async def ask(self, request: Request) -> Operation | Preview | None:
        """Decide a request; answers once the decision is saved, and raises `Refused` where the answer is no."""
        if self.recovering is not None:
            raise Recovering(f"cannot change anything: {self.recovering}", hint="an operator has to restore a backup")
        if self.unsaved_since is not None:
            raise CannotSave(
                "cannot change anything: the disk does not take the daemon's state",
                hint="try again in a moment; `ds01ctl status` says since when",
            )
        await self._prepare(request)
        if len(self._inbox) >= INBOX_MAX:
            raise TooMany("cannot take another request now: too many are waiting", hint="try again in a moment")
        reply: asyncio.Future[Operation | Preview | None] = asyncio.get_running_loop().create_future()
        self._inbox.append((request, reply))
        self._awake.set()
        return await reply

    async def finished(self, operation: OperationId, timeout_s: float) -> Operation:
        """Wait for an operation's end, at most so long; gives it as it is then."""
        found = self._state.operations.get(operation)
        if found is None:
            raise NotFound(f"cannot find the operation {operation}")
        if found.state is not OperationState.PENDING and operation not in self._unreleased:
            return found
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(operation, []).append(ended)
        try:
            async with asyncio.timeout(timeout_s):
                await ended
        except TimeoutError:
            pass
        finally:
            waiting = self._waiting.get(operation, [])
            if ended in waiting:
                waiting.remove(ended)
            if not waiting:
                self._waiting.pop(operation, None)
        return self._on_disk(self._state.operations.get(operation) or found)

    def _on_disk(self, operation: Operation) -> Operation:
        """An operation as it may be told: an end that no save holds yet is none."""
        if operation.id not in self._unreleased:
            return operation
        return msgspec.structs.replace(
            operation,
            state=OperationState.PENDING,
            stage="waiting for the disk",
            finished_at=None,
            failure=None,
            outcome="",
        )

    def watch(self) -> Watch:
        """Every line of the chronicle from here on."""
        watch = Watch(self._watchers.discard)
        self._watchers.add(watch)
        return watch

    # ---- the world's side

    def post(self, event: Event) -> None:
        """Put an event into the inbox. Never refused: it is an answer, or a fact."""
        self._inbox.append((event, None))
        self._awake.set()

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            await self._sleep()
            self._awake.clear()
            self.turn()
            self._turned()

    async def reviewed(self, timeout_s: float) -> bool:
        """Wait until every record was looked at, its permission is whole, and all is saved; says whether it came about.

        What waits for a disk that takes nothing may wait for hours: then it is not waited for.
        """
        end = self._clock.now() + timeout_s
        while self._clock.now() < end:
            outstanding = any(unreviewed(c) for c in self._state.containers)
            if not outstanding and not self._inbox and not self._kept:
                return True
            if self.unsaved_since is not None and self._clock.now() - self.unsaved_since > DISK_WAIT_S:
                return False
            await asyncio.sleep(0.005)
        return False

    def turn(self) -> None:
        """Take in all that came, fire what is due, and see that it gets saved."""
        while self._inbox:
            event, reply = self._inbox.popleft()
            self._take(event, reply)
        if self.unsaved_since is None:
            self._fire()
        else:
            self._tell_pending()
        if self._clock.now() - self._checked_at > CHECK_S:
            self._check()
        self._save()
        self._let_go()

    def _fire(self) -> None:
        now = self._clock.now()
        for _ in range(len(self._state.containers) + len(self._state.allocations) + len(self._state.operations) + 1):
            due = self._state.next_deadline()
            if due is None or due > now:
                return
            self._take(Woke(), None)

    async def _sleep(self) -> None:
        if self._inbox:
            await asyncio.sleep(0)
            return
        now = self._clock.now()
        times = [now + TURN_MAX_S]
        due = self._state.next_deadline() if self.unsaved_since is None else None
        if due is not None:
            times.append(due)
        if self._retry_at is not None:
            times.append(self._retry_at)
        pause = max(0.0, min(times) - now)
        try:
            async with asyncio.timeout(pause):
                await self._awake.wait()
        except TimeoutError:
            pass

    def _take(self, event: Event, reply: "asyncio.Future[Operation | Preview | None] | None") -> None:
        outcome = handle(self._state, event, self._clock.now())
        for container, fault in outcome.faults:
            log.error("event.stumbled", what=repr(event)[:2000], container=container, exc_info=fault)
            if container is not None and not isinstance(event, Stumbled) and reply is None:
                over = event.order if isinstance(event, Done | Failed | Looked) else None
                self._inbox.append((Stumbled(container=container, message=str(fault)[:200], answered=over), None))
        lines = lines_of(self._state, outcome.changes, outcome.effects, self._clock.now())
        if outcome.refused is not None:
            lines += refusal_lines(self._state, event, outcome.refused, self._clock.now())
        answered = bool(outcome.faults or outcome.refused is not None or outcome.preview)
        self._act_soon(outcome, lines, None if answered else reply)
        if reply is None or reply.done():
            return
        if outcome.faults:
            reply.set_exception(
                Bug("cannot do this: a fault of ours", hint="the operators find it in the daemon's log")
            )
        elif outcome.refused is not None:
            reply.set_exception(outcome.refused)
        elif outcome.preview:
            reply.set_result(Preview(lines=outcome.preview))

    def _act_soon(
        self, outcome: Outcome, lines: list[Line], reply: "asyncio.Future[Operation | Preview | None] | None"
    ) -> None:
        """Keep back what rests on this revision; looks change nothing and go at once."""
        later: list[Effect] = []
        for effect in outcome.effects:
            if isinstance(effect, LookAt):
                self._runner.send(effect)
            else:
                later.append(effect)
                if isinstance(effect, Finished):
                    self._unreleased.add(effect.operation)
        touched = self._touched(outcome)
        if later or lines or touched or reply is not None:
            self._kept.append(
                _Kept(
                    revision=self._state.revision,
                    effects=later,
                    lines=lines,
                    touched=touched,
                    reply=reply,
                    operation=outcome.operation,
                )
            )

    def _touched(self, outcome: Outcome) -> dict[ContainerId, str]:
        """The containers that these changes concern, with their names on the engine."""
        found: dict[ContainerId, str] = {}
        for change in outcome.changes:
            match change.new if change.new is not None else change.old:
                case Container() as c:
                    found[c.id] = c.engine_name
                case Allocation(container=container):
                    owner = self._state.containers.get(container)
                    if owner is not None:
                        found[container] = owner.engine_name
                case _:
                    pass
        return found

    # ---- saving

    def _save(self) -> None:
        """Save the newest revision, unless a save is under way: then all that gathers goes with the next one."""
        now = self._clock.now()
        if self._state.revision == self._saved:
            self._unsaved_at = None
            return
        if self._unsaved_at is None:
            self._unsaved_at = now
        if self._saving is not None or self.recovering is not None:
            return
        if self._retry_at is not None and now < self._retry_at:
            return
        self._retry_at = None
        self._saving_revision = self._state.revision
        self._saving = self._saver.save(dump(self._state), self._state)
        self._saving.add_done_callback(self._save_ended)

    def _save_ended(self, saving: "asyncio.Future[None]") -> None:
        self._saving = None
        if saving.cancelled():
            return
        trouble = saving.exception()
        if trouble is None:
            if self._failures:
                log.warning("state.saved_again", failures=self._failures)
            self._saved = self._saving_revision
            self._failures = 0
            self._unsaved_at = None if self._saved == self._state.revision else self._clock.now()
        else:
            pause = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
            self._failures += 1
            self._retry_at = self._clock.now() + pause
            log.error("state.unsaved", error=str(trouble), again_in_s=pause, do="look at the disk of /var/lib/ds01")
            self._tell_pending()
        self._awake.set()

    def _tell_pending(self) -> None:
        """A caller caught in between learns that his request stands, and where to ask for its outcome."""
        for kept in self._kept:
            if kept.reply is not None and not kept.reply.done():
                kept.reply.set_exception(
                    Pending(
                        "cannot save yet: the request is decided and goes on when the disk takes it",
                        hint=f"ask for the outcome of operation {kept.operation}",
                    )
                )

    def _let_go(self) -> None:
        """Release, in order, what rests on a saved revision."""
        while self._kept and self._kept[0].revision <= self._saved:
            kept = self._kept.popleft()
            for line in kept.lines:
                self._notes.record(line)
                for watch in tuple(self._watchers):
                    watch.put(line)
            for container, engine_name in kept.touched.items():
                self._notes.changed(container, engine_name)
            for effect in kept.effects:
                self._perform(effect)
            if kept.reply is not None and not kept.reply.done():
                asked = self._state.operations.get(kept.operation) if kept.operation is not None else None
                kept.reply.set_result(self._on_disk(asked) if asked is not None else None)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Order(container=container, order=order):
                c = self._state.containers.get(container)
                if c is not None and c.order is not None and c.order.id == order:
                    self._runner.send(effect)
            case CutSessions(engine_id=engine_id):
                self._notes.cut_sessions(engine_id)
            case Relist():
                self._notes.relist()
            case Finished(operation=operation):
                self._unreleased.discard(operation)
                for ended in self._waiting.pop(operation, []):
                    if not ended.done():
                        ended.set_result(None)
            case Tell() | Alert():
                if isinstance(effect, Alert):
                    log.warning("operators.told", text=effect.text, container=effect.container)

    def _check(self) -> None:
        self._checked_at = self._clock.now()
        try:
            laws.check(self._state)
        except laws.LawBroken as broken:
            log.error("state.unlawful", error=str(broken), do="report this, with the file gpu-state.json")
