"""The texts of a permission: grant and CDI spec, written and read back. No file is opened here."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from ds01d.model.ids import EngineId, SlotId
from ds01d.model.permission import MountProof, Permission

#: The lowest version that knows hostPath, which is the newest thing used; Docker 25 knows up to 0.6.0.
CDI_VERSION = "0.5.0"
KIND = "ds01/gpu"
DRIVER_KIND = "ds01/driver"
DRIVER_DEVICE = "all"
#: 0600; CDI wants it as a plain number.
NODE_MODE = 0o600
#: Seconds until the runtime kills a guard that hangs, on a dead file server under a mount for instance.
GUARD_TIMEOUT_S = 10
#: Tells the slots in the spec itself: the hook's environment does not reach the container.
SLOTS_VARIABLE = "DS01_SLOTS="

#: A CDI device name that is also a file name and a word of a grant.
_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_SLOT = re.compile(r"[!-+\--~]+")  # printable, neither blank nor comma
_NO_SLOT = "-"
#: Every listing reads all of them again: what a text says is worked out once.
_TEXTS_KEPT = 2048
_MOUNT = re.compile(r"(0|[1-9][0-9]*):(0|[1-9][0-9]*) (/[^\n\0]*)")


class Malformed(ValueError):
    """A grant or a spec does not say what one of ours says; the message tells what is wrong with it."""


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A device node of a CDI spec; what is left out is taken from the node on the host."""

    path: str
    host_path: str | None = None
    type: str | None = None
    permissions: str | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    @property
    def source(self) -> str:
        """Where it lies on the host."""
        return self.host_path or self.path


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A program that the runtime calls on a container's way up."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A file of the driver, shown in the container."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str | None = None


class Edits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a CDI device changes in a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[Node, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One name that a container can ask for."""

    name: str
    container_edits: Edits


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One CDI file. Unknown fields are passed over: a newer vendor's file is still of use."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...]
    container_edits: Edits = Edits()


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What grant and spec both say."""

    container_id: EngineId
    generation: str
    slots: tuple[SlotId, ...]
    #: Only a grant lists them.
    mounts: tuple[MountProof, ...] = ()


def decode(text: bytes) -> Spec:
    """Read any CDI spec in JSON; raises Malformed with the path of what is wrong."""
    try:
        return msgspec.json.decode(text, type=Spec)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error


def convert(document: Any) -> Spec:  # noqa: ANN401 - whatever a YAML file holds
    """The same for a document that YAML has read."""
    try:
        return msgspec.convert(document, type=Spec)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from error


def encode(spec: Spec) -> bytes:
    """The file's bytes; the same spec gives the same bytes."""
    return msgspec.json.encode(spec)


def check_key(key: str) -> None:
    """Refuse a key that would be no device name, lead out of the directory, or hide the driver's spec."""
    if _KEY.fullmatch(key) is None or key == "driver":
        raise Malformed(f"{key!r} cannot be a key")


def grant_text(permission: Permission) -> bytes:
    """The grant: `CONTAINER_ID GENERATION SLOT,…`, then `DEV:INODE TARGET` a line for each mount."""
    slots = ",".join(slot.name for slot in permission.slots) or _NO_SLOT
    lines = [f"{permission.container_id} {permission.generation} {slots}"]
    lines += [f"{mount.dev}:{mount.inode} {mount.target}" for mount in permission.mounts]
    text = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    wanted = tuple(slot.name for slot in permission.slots)
    said = read_grant(text)
    # A word with a blank in it would say something else to the guard.
    assert (said.container_id, said.slots, said.mounts) == (permission.container_id, wanted, permission.mounts)
    return text


@lru_cache(maxsize=_TEXTS_KEPT)
def read_grant(text: bytes) -> Content:
    """Read a grant back as strictly as the guard does."""
    if not text.endswith(b"\n") or b"\0" in text:
        raise Malformed("it is torn")
    head, *rest = text.decode(errors="surrogateescape")[:-1].split("\n")
    words = head.split(" ")
    if len(words) != 3 or not all(_WORD.fullmatch(word) for word in words[:2]):  # noqa: PLR2004
        raise Malformed("its first line is not CONTAINER_ID GENERATION SLOTS")
    mounts = []
    for number, line in enumerate(rest, start=2):
        found = _MOUNT.fullmatch(line)
        if found is None:
            raise Malformed(f"line {number} is not DEV:INODE TARGET")
        mounts.append(MountProof(dev=int(found[1]), inode=int(found[2]), target=found[3]))
    return Content(
        container_id=EngineId(words[0]), generation=words[1], slots=_read_slots(words[2]), mounts=tuple(mounts)
    )


def _read_slots(text: str) -> tuple[SlotId, ...]:
    if text == _NO_SLOT:
        return ()
    names = text.split(",")
    if not all(_SLOT.fullmatch(name) for name in names):
        raise Malformed("its list of slots cannot be read")
    return tuple(SlotId(name) for name in names)


def container_spec(permission: Permission, nodes: tuple[Node, ...], guard: str) -> Spec:
    """The spec of one container: its device nodes, owned by its user, and the guard."""
    slots = ",".join(slot.name for slot in permission.slots) or _NO_SLOT
    hook = Hook(
        hook_name="createRuntime",
        path=guard,
        args=("cdi-guard", permission.key, permission.container_id, permission.generation),
        env=(SLOTS_VARIABLE + slots,),
        timeout=GUARD_TIMEOUT_S,
    )
    owned = tuple(
        Node(
            path=node.path,
            host_path=node.source,
            permissions="rw",  # without mknod, which is the default
            file_mode=NODE_MODE,
            uid=permission.uid,
            gid=permission.gid,
        )
        for node in nodes
    )
    edits = Edits(device_nodes=owned, hooks=(hook,))
    return Spec(cdi_version=CDI_VERSION, kind=KIND, devices=(Device(name=permission.key, container_edits=edits),))


@lru_cache(maxsize=_TEXTS_KEPT)
def read_container_spec(text: bytes, key: str) -> Content:
    """What the spec of one container says, by the arguments of its guard."""
    spec = decode(text)
    if spec.kind != KIND or [device.name for device in spec.devices] != [key]:
        raise Malformed(f"it is not {KIND} with the one device {key}")
    guards = [hook for hook in spec.devices[0].container_edits.hooks if hook.args[:1] == ("cdi-guard",)]
    match guards:
        case [Hook(hook_name="createRuntime", args=(_, named, container_id, generation), env=(variable,))] if (
            named == key and variable.startswith(SLOTS_VARIABLE)
        ):
            slots = _read_slots(variable.removeprefix(SLOTS_VARIABLE))
            return Content(container_id=EngineId(container_id), generation=generation, slots=slots)
        case _:
            raise Malformed("it has no guard of ours")


def driver_spec(common: Edits) -> Spec:
    """The one spec with what every GPU container needs of the driver; no device nodes, those belong to slots."""
    edits = Edits(
        # A device may not be without edits; and with nothing of the vendor's, this much is still right.
        env=common.env or ("NVIDIA_VISIBLE_DEVICES=void",),
        mounts=common.mounts,
        hooks=common.hooks,
    )
    device = Device(name=DRIVER_DEVICE, container_edits=edits)
    return Spec(cdi_version=CDI_VERSION, kind=DRIVER_KIND, devices=(device,))
