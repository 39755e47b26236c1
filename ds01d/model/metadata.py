"""What a container's metadata file says, for other programs; written from the state and never read back."""

import msgspec


class ContainerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One managed container; times in epoch seconds."""

    #: NAME._.UID.
    engine_name: str
    id: str
    name: str
    user: str
    uid: int
    image: str
    phase: str
    #: None: it is parked, or has no GPU.
    allocation: str | None = None
    #: As people write them, `0:1`.
    slots: tuple[str, ...] = ()
    gpueq: float = 0.0
    allocated_at: float | None = None
    stopped_at: float | None = None
    #: When its hold ends; None: it has none, or one without an end.
    deadline: float | None = None
