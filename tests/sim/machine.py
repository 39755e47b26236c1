"""The machine below everything: processes, cgroups, cards, files and the clock. It obeys, and knows nothing of ds01d.

Processes that got past the guard use the slots of their permission. The one law that the simulation is about stands
here: no two containers' processes on one slot, nor on a slice and its card.
"""

from ds01d.model.ids import EngineId, Key, SlotId
from ds01d.model.probe import GpuSeen, SliceSeen


class Unsafe(AssertionError):
    """The world became what it must never be."""


class Proc:
    """A container's process tree, from its cgroup being filled to its end."""

    __slots__ = ("alive", "container", "guarded", "obeyed", "serial", "slots", "visible")

    def __init__(self, serial: int, container: EngineId, slots: tuple[SlotId, ...]) -> None:
        self.serial = serial
        self.container = container
        self.slots = slots
        #: The guard has let it through: it runs the user's code and uses the slots.
        self.guarded = False
        #: It has opened its cards: only then NVML shows it.
        self.visible = False
        self.alive = True
        #: It ended by itself when it was asked to.
        self.obeyed = False


class Grant:
    """What a grant and a spec say; devices are the minors of the cards, which may come to mean other cards."""

    __slots__ = ("devices", "engine_id", "generation", "slots")

    def __init__(
        self, engine_id: EngineId, generation: str, slots: tuple[SlotId, ...], devices: tuple[int, ...]
    ) -> None:
        self.engine_id = engine_id
        self.generation = generation
        self.slots = slots
        self.devices = devices

    def same(self, other: "Grant | None") -> bool:
        return other is not None and (self.engine_id, self.generation, self.slots, self.devices) == (
            other.engine_id,
            other.generation,
            other.slots,
            other.devices,
        )


class Card:
    """A card; cut into slices or not."""

    __slots__ = ("lost", "mig", "minor", "n", "slices")

    def __init__(self, n: int, slices: int) -> None:
        self.n = n
        self.minor = n
        self.slices = slices
        self.mig = slices > 0
        self.lost = False

    @property
    def uuid(self) -> str:
        return f"GPU-{self.n}"

    def slots(self) -> tuple[SlotId, ...]:
        if not self.mig:
            return (SlotId(self.uuid),)
        return tuple(SlotId(f"{self.uuid}/3g.40gb@{4 * i}") for i in range(self.slices))


class Machine:
    """Processes, files under /run, cards, and what time it is."""

    def __init__(self, cards: list[Card]) -> None:
        self.now = 1_800_000_000.0
        self.boots = 1
        self.serial = 0
        self.procs: dict[int, Proc] = {}
        #: Living processes by container.
        self.cgroups: dict[EngineId, dict[int, Proc]] = {}
        self.grants: dict[Key, Grant] = {}
        self.specs: dict[Key, Grant] = {}
        #: Keys whose files somebody has taken away since they were written.
        self.wiped: set[Key] = set()
        self.cards = cards
        self.blind = False
        #: MiB that the driver still holds on a slot after its process has ended.
        self.lingering: dict[SlotId, int] = {}
        #: Processes that the living engine is starting or runs.
        self.known: set[int] = set()
        #: Slots used by something that is not ours: its name and the slot.
        self.foreign: dict[SlotId, EngineId] = {}

    # ---- processes

    def spawn(self, container: EngineId, slots: tuple[SlotId, ...]) -> Proc:
        self.serial += 1
        proc = Proc(self.serial, container, slots)
        self.procs[proc.serial] = proc
        self.cgroups.setdefault(container, {})[proc.serial] = proc
        return proc

    def let_in(self, proc: Proc) -> None:
        """The guard has let it through."""
        for other in self.procs.values():
            if other.guarded and other.container != proc.container and touching(other.slots, proc.slots):
                raise Unsafe(f"{proc.container} and {other.container} both run on {set(proc.slots) & set(other.slots)}")
        proc.guarded = True

    def end(self, proc: Proc, lingering_mib: int = 0) -> None:
        proc.alive = False
        self.known.discard(proc.serial)
        self.procs.pop(proc.serial, None)
        inside = self.cgroups.get(proc.container, {})
        inside.pop(proc.serial, None)
        if not inside:
            self.cgroups.pop(proc.container, None)
        if lingering_mib and proc.visible:
            for slot in proc.slots:
                self.lingering[slot] = lingering_mib

    def obey(self, proc: Proc) -> None:
        """It was asked to end, and does."""
        proc.obeyed = True
        self.end(proc)

    def kill_ghost(self, proc: Proc) -> None:
        """SIGKILL to what was taken for a ghost; one that the engine knows of is none."""
        if proc.serial in self.known:
            raise Unsafe(f"a start of {proc.container} that the engine knows of was killed as a ghost")
        self.end(proc)

    def users(self, slot: SlotId) -> list[Proc]:
        """Processes past the guard on this slot or on one that touches it."""
        return [p for p in self.procs.values() if p.guarded and touching(p.slots, (slot,))]

    def reboot(self) -> None:
        self.boots += 1
        for proc in list(self.procs.values()):
            self.end(proc)
        self.grants.clear()
        self.specs.clear()
        self.wiped.clear()
        self.lingering.clear()
        self.foreign.clear()
        self.blind = False
        for card in self.cards:
            card.lost = False

    # ---- cards

    def here(self) -> set[SlotId]:
        return {s for card in self.cards if not card.lost for s in card.slots()}

    def minors(self, slots: tuple[SlotId, ...]) -> tuple[int, ...]:
        """The device map: the minors of these slots' cards now."""
        by_uuid = {card.uuid: card.minor for card in self.cards}
        return tuple(by_uuid[slot.partition("/")[0]] for slot in slots)

    def behind(self, spec: Grant) -> tuple[SlotId, ...] | None:
        """What the device nodes of a spec mean now; None: one of them is not there."""
        by_minor = {card.minor: card for card in self.cards}
        here, found = self.here(), []
        for slot, minor in zip(spec.slots, spec.devices, strict=True):
            _, cut, rest = slot.partition("/")
            meant = SlotId(f"{by_minor[minor].uuid}{cut}{rest}")
            if meant not in here:
                return None
            found.append(meant)
        return tuple(found)

    def swap_minors(self) -> None:
        """The driver was loaded anew and counts its cards otherwise."""
        first, last = self.cards[0], self.cards[-1]
        first.minor, last.minor = last.minor, first.minor

    def seen(self) -> tuple[GpuSeen, ...]:
        """The cards as NVML shows them."""
        return tuple(self._seen(card) for card in self.cards)

    def _seen(self, card: Card) -> GpuSeen:
        slots = card.slots()
        used = [self.lingering.get(s, 0) + (9000 if self.on(s) else 0) for s in slots]
        slices: tuple[SliceSeen, ...] = ()
        if card.mig:
            slices = tuple(
                SliceSeen(
                    profile="3g.40gb",
                    start=4 * i,
                    size=4,
                    compute=3,
                    compute_of=7,
                    gi=i + 1,
                    ci=0,
                    uuid=f"MIG-{card.n}-{i}",
                    memory_total_mib=40_000,
                    memory_used_mib=used[i],
                )
                for i in range(card.slices)
            )
        return GpuSeen(
            uuid=card.uuid,
            index=card.n,
            minor=card.minor,
            name="H100",
            memory_total_mib=80_000,
            memory_used_mib=sum(used),
            memory_v2=True,
            mig=card.mig,
            slices=slices,
            processes=(),
            lost=card.lost,
        )

    def on(self, slot: SlotId) -> list[EngineId]:
        """Who uses exactly this slot, as NVML would list it."""
        found = [p.container for p in self.procs.values() if p.visible and slot in p.slots]
        if slot in self.foreign:
            found.append(self.foreign[slot])
        return found


def touching(some: tuple[SlotId, ...], others: tuple[SlotId, ...]) -> bool:
    """Whether two sets of slots share one, or one holds a slice of the other's card."""
    for a in some:
        for b in others:
            if a == b:
                return True
            card_a, _, slice_a = a.partition("/")
            card_b, _, slice_b = b.partition("/")
            if card_a == card_b and (not slice_a or not slice_b):
                return True
    return False
