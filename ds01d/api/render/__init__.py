"""What people see: a result or an error as text. Programs are given the values themselves."""

import msgspec

from ds01d.api.handlers.container import ContainerList, Outcome
from ds01d.api.handlers.machine import AllocationList, GpuList, ImageList
from ds01d.api.handlers.operation import OperationList
from ds01d.api.handlers.system import Events, MachineStatus, Story, Version
from ds01d.api.render import container, machine
from ds01d.api.render.page import Page, clean
from ds01d.core.views.containers import WhyView
from ds01d.core.views.operations import OperationView


def text(result: msgspec.Struct, page: Page) -> str:
    """A result as people read it; one that nobody reads is shown as JSON."""
    match result:
        case ContainerList():
            shown = container.listing(result, page)
        case Outcome():
            shown = container.outcome(result, page)
        case WhyView():
            shown = container.why(result, page)
        case OperationView():
            shown = container.operation(result, page)
        case OperationList():
            shown = machine.operations(result, page)
        case GpuList():
            shown = machine.gpus(result, page)
        case AllocationList():
            shown = machine.allocations(result, page)
        case ImageList():
            shown = machine.images(result, page)
        case MachineStatus():
            shown = machine.status(result, page)
        case Events():
            shown = machine.events(result, page)
        case Story():
            shown = machine.story(result, page)
        case Version():
            shown = machine.version(result, page)
        case _:
            shown = msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n"
    return shown


def aside(result: msgspec.Struct, page: Page) -> str:
    """What a reader should know beside the result, for the error stream; mostly nothing."""
    match result:
        case ContainerList(notices=found) | GpuList(notices=found):
            return machine.notices(found, page).rstrip("\n")
        case _:
            return ""


def refusal(message: str, hint: str) -> str:
    """Why not, and what to do next."""
    return f"{clean(message)}\n" + (f"hint: {clean(hint)}\n" if hint else "")
