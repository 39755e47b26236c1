"""What a layout file says of the cards, and the MIG profile tables of the cards it may name."""

from typing import Final, NotRequired, TypedDict

#: enumerator, id, profile, compute slices, memory slices, most instances. The ids are those of a real H100 listing.
_SEVENTHS: Final = (
    (0, 19, 1, 1, 1, 7),
    (7, 20, 1, 1, 1, 1),  # the one with media engines
    (9, 15, 1, 1, 2, 4),
    (1, 14, 2, 2, 2, 3),
    (2, 9, 3, 3, 4, 2),
    (3, 5, 4, 4, 4, 1),
    (4, 0, 7, 7, 8, 1),
)
_QUARTERS: Final = ((0, 14, 1, 1, 1, 4), (1, 5, 2, 2, 2, 2), (3, 0, 4, 4, 4, 1))


class SliceLayout(TypedDict):
    """One MIG slice of a layout file."""

    profile: str
    gi: int
    ci: int
    start: int
    size: int
    uuid: str
    memory_mib: int


class MigLayout(TypedDict):
    """How a card is cut; no slices is a legal state."""

    slices: list[SliceLayout]


class GpuLayout(TypedDict):
    """One card of a layout file."""

    uuid: str
    name: str
    minor: int
    #: As in /proc/driver/nvidia/gpus, `0000:1b:00.0`.
    pci: NotRequired[str]
    memory_mib: int
    mig: MigLayout | None


class Layout(TypedDict):
    """A whole layout file."""

    gpus: list[GpuLayout]


def profiles_of(name: str, memory_mib: int) -> list[tuple[int, int, str, int, int, int, int]]:
    """List a card's MIG profiles: enumerator, id, name, compute slices, memory slices, instances, MiB; [] = no MIG."""
    if not any(model in name for model in ("A30", "A100", "H100")):
        return []
    rows, parts = (_QUARTERS, 4) if "A30" in name else (_SEVENTHS, 8)
    whole_gb = round(memory_mib / 1024 / parts) * parts
    table = []
    for number, key, _, compute, size, instances in rows:
        extra = "+me" if key == 20 else ""
        gb = whole_gb * size // parts
        text = f"{compute}g.{gb}gb{extra}"
        table.append((number, key, text, compute, size, instances, memory_mib * size // parts - 200))
    return table
