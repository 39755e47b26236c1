"""The whole surface in one table: name, parameters, result, who may call, what it may refuse with, where it runs."""

from ds01d.api.access import ANYONE, EVERYBODYS, OPERATOR, OWNER, RELEASER, SELF
from ds01d.api.handlers import container, creating, machine, operation, shells, system
from ds01d.api.method import Method
from ds01d.api.openrpc import discover
from ds01d.api.params import Listing, Nothing
from ds01d.core.views.containers import WhyView
from ds01d.core.views.operations import OperationView
from ds01d.model import errors as no

_ENGINE = (no.EngineTrouble, no.EngineDown)
#: What any change may be refused with.
_CHANGE = (
    no.Invalid,
    no.NotFound,
    no.WrongPhase,
    no.Frozen,
    no.CannotSave,
    no.Pending,
    no.Recovering,
    *_ENGINE,
)
#: What stands between a request and its slots.
_SLOTS = (
    no.QuotaExceeded,
    no.TooManyPerContainer,
    no.FullGpuNotAllowed,
    no.NoSuchSlots,
    no.NoneFree,
    no.CannotSee,
)
_FIND = (no.Invalid, no.NotFound)

# fmt: off
_WORK: tuple[Method, ...] = (
    Method("container.create", creating.CreateParams, container.Outcome, SELF,
           (*_CHANGE, *_SLOTS, no.NameTaken, no.ImageNotFound), creating.create),
    Method("container.start", container.StartParams, container.Outcome, OWNER, (*_CHANGE, *_SLOTS), container.start),
    Method("container.stop", container.StopParams, container.Outcome, OWNER, _CHANGE, container.stop),
    Method("container.remove", container.RemoveParams, container.Outcome, OWNER, _CHANGE, container.remove),
    # Owners end their own hold with a stop that releases; this one also takes the word that an engine is gone.
    Method("container.release", container.ReleaseParams, container.Outcome, RELEASER, _CHANGE, container.release),
    # Three faults of ours stand behind a frozen record: whoever takes it up again should have read them.
    Method("container.thaw", container.WhichParams, container.Outcome, OPERATOR, _CHANGE, container.thaw),
    Method("container.list", container.ListParams, container.ContainerList, EVERYBODYS, (), container.list_),
    Method("container.left", container.WhichParams, container.Outcome, OWNER, _FIND, container.left),
    Method("container.why", container.WhichParams, WhyView, OWNER, _FIND, container.why),
    Method("exec.start", shells.ShellParams, shells.Started, OWNER,
           (*_FIND, no.WrongPhase, *_ENGINE), shells.start),
    Method("exec.resize", shells.ResizeParams, shells.Resized, OWNER, (*_FIND, *_ENGINE), shells.resize),
    Method("exec.result", shells.ExecParams, shells.ExecState, OWNER, (*_FIND, *_ENGINE), shells.result),
    Method("operation.get", operation.OperationParams, OperationView, OWNER, _FIND, operation.get),
    Method("operation.wait", operation.WaitParams, OperationView, OWNER, _FIND, operation.wait),
    Method("operation.list", Listing, operation.OperationList, EVERYBODYS, (), operation.list_),
    # Refusals name who holds a slot and until when, so anybody may see that much of all of them.
    Method("gpu.list", Nothing, machine.GpuList, ANYONE, (), machine.gpus),
    Method("allocation.list", Listing, machine.AllocationList, EVERYBODYS, (), machine.allocations),
    Method("image.list", Listing, machine.ImageList, EVERYBODYS, (no.NotFound, *_ENGINE), machine.list_images),
    Method("system.status", Nothing, system.MachineStatus, ANYONE, (), system.status),
    Method("system.version", Nothing, system.Version, ANYONE, (), system.version),
    Method("system.events", system.EventsParams, system.Events, ANYONE, (no.Invalid,), system.events),
    Method("system.story", system.StoryParams, system.Story, ANYONE, (no.NotFound,), system.story),
)
# fmt: on

METHODS: tuple[Method, ...] = (*_WORK, discover(_WORK))
