"""The engine of the simulated machine, with the habits that facts about the real one taught.

A call is executed some time after it was sent, and answered some time after that, if at all. A start takes steps: the
CDI spec is read from a cache that runs behind, the cgroup is filled, the guard reads the grant, the container runs. An
engine that dies in the middle of a start leaves the runtime behind, which goes on alone: a ghost. While a session is
left unread, the engine does not notice that its container has ended.
"""

from enum import StrEnum

from ds01d.adapters.docker_errors import GUARD
from ds01d.model.facts import CgroupStatus, EngineStatus, Listed
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, OrderId, SlotId, Uid
from tests.sim.machine import Grant, Machine, Proc


class CallKind(StrEnum):
    CREATE = "create"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    REMOVE = "remove"


class Made:
    """One container on the engine."""

    __slots__ = (
        "created_at",
        "exit_code",
        "finished_at",
        "id",
        "key",
        "label",
        "name",
        "proc",
        "started_at",
        "status",
        "uid",
        "unread",
        "user_name",
    )

    def __init__(
        self, engine_id: EngineId, name: str, key: Key, label: ContainerId | None, uid: Uid, created_at: float
    ) -> None:
        self.id = engine_id
        self.name = name
        self.user_name = name.partition("._.")[0]
        self.key = key
        self.label = label
        self.uid = uid
        self.created_at = created_at
        self.status = EngineStatus.CREATED
        self.started_at = 0.0
        self.finished_at = 0.0
        self.exit_code: int | None = None
        self.proc: Proc | None = None
        #: A session that nobody reads: the end of the container is not noticed.
        self.unread = False

    @property
    def starved(self) -> bool:
        """Says running, and its processes have ended."""
        return self.status is EngineStatus.RUNNING and (self.proc is None or not self.proc.alive)


class Call:
    """One request to the engine, on its way or being carried out."""

    __slots__ = ("engine_id", "executed", "image", "key", "kind", "label", "name", "order", "result", "uid")

    def __init__(self, kind: CallKind, order: OrderId | None, engine_id: EngineId | None) -> None:
        self.kind = kind
        #: Who waits for the answer; None: nobody any more, or a person.
        self.order = order
        self.engine_id = engine_id
        self.name = ""
        self.image = ""
        self.key = Key("")
        self.label = ContainerId("")
        self.uid = Uid(0)
        self.executed = False
        #: Once known: "" for yes, else why not.
        self.result: str | None = None


class Starting:
    """A start on its way: what it read from the cache, and its process once there is one."""

    __slots__ = ("call", "made", "orphan", "proc", "slots", "spec")

    def __init__(self, made: Made, call: Call | None, spec: Grant, slots: tuple[SlotId, ...]) -> None:
        self.made = made
        self.call = call
        self.spec = spec
        #: What its device nodes mean at this moment.
        self.slots = slots
        self.proc: Proc | None = None
        #: The engine that began it is dead.
        self.orphan = False


IMAGES = frozenset({"image", "bb:latest"})
NO_IMAGE = "No such image"
NAME_TAKEN = "the name is taken by"


class Engine:
    """Containers, calls and a cache; it knows no allocation."""

    def __init__(self, machine: Machine, *, keeps_running: bool) -> None:
        self.machine = machine
        #: Containers outlive a crash of the engine (live-restore).
        self.keeps_running = keeps_running
        self.installed = 1
        self.name = EngineName("engine-1")
        self.up = True
        self.restarts = 0
        self.made: dict[EngineId, Made] = {}
        #: What engines made that were there before this one, and may come back.
        self.shelf: dict[EngineName, dict[EngineId, Made]] = {}
        #: Whose container of ours an engine's id was, also after its removal.
        self.label_of: dict[EngineId, ContainerId] = {}
        self.starting: list[Starting] = []
        self.calls: list[Call] = []
        self.cache: dict[Key, Grant] = {}
        self.hints: list[tuple[EngineId, str]] = []
        self._serial = 0

    # ---- calls

    def send(self, call: Call) -> bool:
        """Take a call; False: nobody listens."""
        if self.up:
            self.calls.append(call)
        return self.up

    def can_execute(self, call: Call) -> bool:
        """Not behind another start of the same container, which holds its lock."""
        return self.up and not call.executed and not self.locked(call.engine_id)

    def locked(self, engine_id: EngineId | None) -> bool:
        return any(s.made.id == engine_id and not s.orphan for s in self.starting)

    def execute(self, call: Call) -> None:
        call.executed = True
        if call.kind is CallKind.CREATE:
            self._create(call)
            return
        made = self.made.get(call.engine_id) if call.engine_id is not None else None
        if made is None:
            call.result = f"No such container: {call.engine_id}"
            return
        match call.kind:
            case CallKind.START:
                self._start(made, call)
            case CallKind.STOP:
                call.result = "" if made.status is not EngineStatus.RUNNING else None
            case CallKind.KILL:
                if made.status is EngineStatus.RUNNING and made.proc is not None and made.proc.alive:
                    self.machine.end(made.proc)
                # It waits for the end to be noticed; while a session is left unread it answers all the same.
                call.result = None if made.status is EngineStatus.RUNNING and not made.unread else ""
            case CallKind.REMOVE:
                call.result = self._remove(made)

    def _create(self, call: Call) -> None:
        if call.image not in IMAGES:
            call.result = f"{NO_IMAGE}: {call.image}"
            return
        for made in self.made.values():
            if made.name == call.name:
                same = made.label == call.label and made.key == call.key and made.started_at == 0
                call.engine_id = made.id
                call.result = "" if same else f"{NAME_TAKEN} {made.id}"
                return
        self._serial += 1
        engine_id = EngineId(f"e{self._serial}")
        self.made[engine_id] = Made(engine_id, call.name, call.key, call.label, call.uid, self.machine.now)
        self.label_of[engine_id] = call.label
        call.engine_id = engine_id
        call.result = ""
        self.hints.append((engine_id, "create"))

    def _remove(self, made: Made) -> str:
        if made.status is EngineStatus.RUNNING:
            return "is running"
        del self.made[made.id]
        self.hints.append((made.id, "destroy"))
        return ""

    # ---- starts

    def _start(self, made: Made, call: Call | None) -> None:
        def say(words: str) -> None:
            if call is not None:
                call.result = words

        if made.status is EngineStatus.RUNNING:
            say("")
            return
        if made.id in self.machine.cgroups:
            say("failed to create task for container: task already exists")
            return
        spec = self.cache.get(made.key)
        if spec is None:
            say(f"CDI device injection failed: unresolvable CDI devices ds01/gpu={made.key}")
            return
        slots = self.machine.behind(spec)
        if slots is None:
            say("no such device")
            return
        self.starting.append(Starting(made, call, spec, slots))

    def raw_start(self, made: Made) -> None:
        """A person's `docker start`."""
        if not self.locked(made.id):
            self._start(made, None)

    def advance(self, s: Starting) -> None:
        """One step of a start: cgroup, then guard; what the guard lets in runs."""
        if s.proc is None:
            s.proc = self.machine.spawn(s.made.id, s.slots)
            self.machine.known.add(s.proc.serial)
            return
        words = "killed" if not s.proc.alive else self._guard(s)
        self.starting.remove(s)
        if words:
            self.machine.end(s.proc)
        else:
            self.machine.let_in(s.proc)
        if s.orphan:
            return
        if not words:
            s.made.status = EngineStatus.RUNNING
            s.made.started_at = self.machine.now
            s.made.proc = s.proc
            self.hints.append((s.made.id, "start"))
        if s.call is not None:
            s.call.result = words

    def _guard(self, s: Starting) -> str:
        """The hook's arguments come from the spec that the cache had; the grant is read now."""
        if s.spec.engine_id != s.made.id:
            return f"{GUARD}this device name belongs to another container"
        grant = self.machine.grants.get(s.made.key)
        if grant is None:
            return "there is no permission"
        if grant.engine_id != s.made.id:
            return f"{GUARD}its grant belongs to another container"
        if grant.generation != s.spec.generation:
            return f"{GUARD}stale generation"
        return ""

    # ---- ends

    def notice(self, made: Made) -> None:
        """The engine sees that a container has ended."""
        made.status = EngineStatus.STOPPED
        made.finished_at = self.machine.now
        made.exit_code = 0 if made.proc is not None and made.proc.obeyed else 137
        made.proc = None
        for call in self.calls:
            waits = call.executed and call.result is None and call.kind in {CallKind.STOP, CallKind.KILL}
            if waits and call.engine_id == made.id:
                call.result = ""
        self.hints.append((made.id, "die"))

    def raw_kill(self, made: Made) -> None:
        if made.proc is not None and made.proc.alive:
            self.machine.end(made.proc)

    def raw_remove(self, made: Made) -> None:
        self._remove(made)

    # ---- the engine's own life

    def die(self) -> tuple[OrderId, ...]:
        """SIGKILL. Gives the orders whose connection broke."""
        self.up = False
        broken = tuple(c.order for c in self.calls if c.order is not None)
        self.calls.clear()
        self.hints.clear()
        for s in list(self.starting):
            if s.proc is None:
                self.starting.remove(s)
            else:
                s.orphan = True
                s.call = None
                self.machine.known.discard(s.proc.serial)
        return broken

    def come_up(self) -> None:
        self.up = True
        self.restarts += 1
        self.cache = dict(self.machine.specs)
        for made in self.made.values():
            if made.status is not EngineStatus.RUNNING:
                continue
            made.unread = False
            alive = made.proc is not None and made.proc.alive
            if alive and self.keeps_running:
                continue
            if made.proc is not None and alive:
                self.machine.end(made.proc)
            self.notice(made)

    def made_anew(self) -> None:
        """Another engine from here on, which has never made anything."""
        self.shelf[self.name] = self.made
        self.installed += 1
        self.name = EngineName(f"engine-{self.installed}")
        self.made = {}

    def made_as_before(self, name: EngineName) -> None:
        """An engine that was there before is back, and knows what it had made."""
        self.shelf[self.name] = self.made
        self.name, self.made = name, self.shelf.pop(name)

    def borrow(self, key: Key) -> None:
        """Somebody makes a container of his own that names another's permission."""
        self.raw_create(f"borrower-{self._serial}", key)

    def raw_create(self, name: str, key: Key) -> Made:
        """A person's `docker create` with the device of a key."""
        self._serial += 1
        made = Made(EngineId(f"e{self._serial}"), name, key, None, Uid(50), self.machine.now)
        self.made[made.id] = made
        return made

    def reboot(self) -> None:
        """The machine went down: nothing of a start is left, and what ran has ended."""
        self.starting.clear()
        self.calls.clear()
        self.hints.clear()
        self.up = False

    # ---- what can be asked of it

    def by_name(self, name: str) -> Made | None:
        return next((m for m in self.made.values() if m.name == name), None)

    def listing(self) -> tuple[Listed, ...]:
        return tuple(
            Listed(
                engine_id=m.id,
                name=m.name,
                status=m.status,
                image="image",
                created_at=m.created_at,
                cgroup=CgroupStatus.OCCUPIED if m.id in self.machine.cgroups else CgroupStatus.EMPTY,
                label_id=m.label,
                label_key=m.key if m.label is not None else None,
                label_uid=m.uid,
                label_user=f"u{m.uid}",
                label_name=m.user_name,
            )
            for m in self.made.values()
        )
