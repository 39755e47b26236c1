"""Refusals: the answer is no, for a reason that a person can act on. One class per kind, with the API's number."""

from typing import ClassVar

from ds01d.model.operation import Failure


class Refused(Exception):
    """The answer is no. Raised in the core and the API only, and always reaches the caller."""

    kind: ClassVar[str] = "refused"
    #: The JSON-RPC error code.
    code: ClassVar[int] = -31000
    #: The exit code of the commands.
    exit_code: ClassVar[int] = 1
    #: The word in the allocation log, where a refused request for slots is written down.
    word: ClassVar[str] = "REFUSED"

    def __init__(self, message: str, *, hint: str = "", note: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        #: Figures for the log after the word, such as `(2/2)`.
        self.note = note

    @property
    def failure(self) -> Failure:
        """The same refusal as a value, to be kept with an operation."""
        return Failure(kind=self.kind, message=self.message, hint=self.hint)


class Denied(Refused):
    """The caller may not do this."""

    kind = "denied"
    code = -31001
    exit_code = 3
    word = "DENIED"


class NotFound(Refused):
    """No such container, slot, operation or user, as far as the caller may know."""

    kind = "not_found"
    code = -31002
    exit_code = 4
    word = "NOT_FOUND"


class Invalid(Refused):
    """A value that cannot be meant: names the place and what was expected."""

    kind = "invalid"
    code = -31003
    exit_code = 2
    word = "INVALID"


class NameTaken(Refused):
    """The user already has a container of that name."""

    kind = "name_taken"
    code = -31004
    word = "NAME_TAKEN"


class QuotaExceeded(Refused):
    """The user's own limit is reached."""

    kind = "quota_exceeded"
    code = -31005
    word = "USER_AT_LIMIT"


class TooManyPerContainer(Refused):
    """More slots in one container than the user may have in one."""

    kind = "container_limit"
    code = -31006
    word = "EXCEEDS_CONTAINER_LIMIT"


class FullGpuNotAllowed(Refused):
    """The user may hold MIG slices only."""

    kind = "full_gpu_not_allowed"
    code = -31007
    word = "FULL_GPU_NOT_ALLOWED"


class NoSuchSlots(Refused):
    """This machine has no such slots, whoever holds them."""

    kind = "no_such_slots"
    code = -31008
    word = "NO_SUCH_SLOTS"


class NoneFree(Refused):
    """All matching slots are held by somebody; later it may be otherwise."""

    kind = "none_free"
    code = -31009
    exit_code = 75
    word = "NO_GPU_AVAILABLE"


class CannotSee(Refused):
    """NVML does not answer: what cannot be seen is not given."""

    kind = "cannot_see"
    code = -31010
    exit_code = 75
    word = "CANNOT_SEE_GPUS"


class WrongPhase(Refused):
    """The container is not in a state in which this can be done."""

    kind = "wrong_phase"
    code = -31011
    word = "WRONG_PHASE"


class Frozen(Refused):
    """The record met three bugs in a row and waits for an operator."""

    kind = "frozen"
    code = -31012
    word = "FROZEN"


class CannotSave(Refused):
    """The disk does not take the state: nothing is changed until it does."""

    kind = "cannot_save"
    code = -31013
    exit_code = 75
    word = "CANNOT_SAVE"


class Pending(Refused):
    """Not finished yet; the operation goes on and can be waited for."""

    kind = "pending"
    code = -31014
    exit_code = 75
    word = "PENDING"


class EngineTrouble(Refused):
    """The engine refused or did not answer; its own words, made readable."""

    kind = "engine"
    code = -31015
    word = "ENGINE"


class Paused(EngineTrouble):
    """The engine holds every process of the container still; no kind of its own."""


class EngineDown(Refused):
    """The engine does not answer: nothing was done, and later it may be otherwise."""

    kind = "engine_down"
    code = -31020
    exit_code = 75
    word = "ENGINE_DOWN"


class ImageNotFound(Refused):
    """No such image on the engine."""

    kind = "image_not_found"
    code = -31016
    exit_code = 4
    word = "IMAGE_NOT_FOUND"


class TooMany(Refused):
    """Too many requests, connections or shells of one user at once."""

    kind = "too_many"
    code = -31017
    exit_code = 75
    word = "TOO_MANY"


class Recovering(Refused):
    """The state could not be loaded: only reads are answered until an operator decides."""

    kind = "recovering"
    code = -31018
    exit_code = 75
    word = "RECOVERING"


class AccountsSilent(Refused):
    """The directory of users does not answer, so nobody can say who somebody is."""

    kind = "accounts_silent"
    code = -31019
    exit_code = 75
    word = "ACCOUNTS_SILENT"


class Bug(Refused):
    """A fault of ours, contained to one request."""

    kind = "internal"
    code = -32603
    word = "INTERNAL"


#: Every kind, for the declared errors of the methods and for looking a code up.
KINDS: tuple[type[Refused], ...] = (
    Denied,
    NotFound,
    Invalid,
    NameTaken,
    QuotaExceeded,
    TooManyPerContainer,
    FullGpuNotAllowed,
    NoSuchSlots,
    NoneFree,
    CannotSee,
    WrongPhase,
    Frozen,
    CannotSave,
    Pending,
    EngineTrouble,
    EngineDown,
    ImageNotFound,
    TooMany,
    Recovering,
    AccountsSilent,
    Bug,
)
BY_KIND: dict[str, type[Refused]] = {k.kind: k for k in KINDS}
