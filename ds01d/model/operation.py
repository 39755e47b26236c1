"""One long request that outlives its caller: stages, and an outcome that can be asked for again."""

from enum import StrEnum

import msgspec

from ds01d.model.ids import ContainerId, OperationId, Uid


class Verb(StrEnum):
    """What was asked for."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"
    RELEASE = "release"


class OperationState(StrEnum):
    """Whether it is still going on, and how it ended."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error kept with an operation: the same kind, words and hint that a caller is given at once."""

    kind: str
    message: str
    hint: str = ""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way."""

    id: OperationId
    #: Who asked; he and operators may see it.
    uid: Uid
    verb: Verb
    container: ContainerId
    container_name: str
    created_at: float
    #: The caller's own word for this request: the same word again is the same request.
    request_id: str | None = None
    state: OperationState = OperationState.PENDING
    stage: str = ""
    finished_at: float | None = None
    failure: Failure | None = None
    #: What came of it, in a sentence for people.
    outcome: str = ""
