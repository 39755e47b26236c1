"""Which device nodes a slot has: the vendor's CDI spec for whole cards, the device map for slices. Reads, never writes.

The vendor's spec is refreshed when the driver changes, not when a card is cut anew (nvidia-container-toolkit #1828), so
a slice is never taken from it; only where nodes lie on the host is.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import yaml

from ds01d.adapters.cdi_spec import Edits, Malformed, Node, Spec, convert
from ds01d.model.permission import SlotDevice

KIND = "nvidia.com/gpu"
_SUFFIXES = (".json", ".yaml")
_CARD = re.compile(r"/dev/nvidia[0-9]+")
_CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
#: A file that changed less than so many seconds ago may change again without its times showing it.
_SETTLED_S: Final = 2.0
_CAPABILITY = re.compile(r"^DeviceFileMinor:\s*([0-9]+)\s*$", re.MULTILINE)


class VendorSpecError(OSError):
    """The vendor's spec cannot be used, and guessing could give out a wrong device; the message says file and path."""


class DeviceMissing(OSError):
    """A device node or capability that a slot needs is not there."""


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's own CDI spec, or nothing where there is none."""

    devices: dict[str, tuple[Node, ...]] = {}
    common: Edits = Edits()

    def card(self, slot: SlotDevice) -> tuple[Node, ...] | None:
        """The nodes of a whole card; None when the spec does not know it, or knows it under another minor."""
        named = self.devices.get(slot.uuid)
        if named is not None:
            return named if _cards(named) == [_card_path(slot.minor)] else None
        for nodes in self.devices.values():  # named by index only: the minor tells which
            if _cards(nodes) == [_card_path(slot.minor)] and not any("/nvidia-caps/" in node.path for node in nodes):
                return nodes
        return None

    def source(self, path: str) -> str | None:
        """Where the node that containers see as `path` lies on the host."""
        for nodes in (*self.devices.values(), self.common.device_nodes):
            for node in nodes:
                if node.path == path:
                    return node.source
        return None


class VendorFiles:
    """The vendor's spec, parsed again only when a file has changed: with 56 slices that takes 10 ms and more."""

    def __init__(self, directories: Sequence[Path], *, clock: Callable[[], float] = time.time) -> None:
        self._directories = tuple(directories)
        self._clock = clock
        self._kept: tuple[tuple[_Mark, ...], Vendor] | None = None

    def read(self) -> Vendor:
        """The spec as it is on disk now."""
        # Before it is read: what changes meanwhile has another mark the next time.
        marks = tuple(_marks(self._directories))
        kept = self._kept
        if kept is not None and kept[0] == marks:
            return kept[1]
        age_s = self._clock() - max((mark.changed_at for mark in marks), default=0.0)
        vendor = read_vendor(self._directories)
        self._kept = (marks, vendor) if age_s > _SETTLED_S else None
        return vendor


class _Mark(NamedTuple):
    """What tells one state of a file from another."""

    path: Path
    inode: int
    size: int
    written_ns: int
    changed_ns: int

    @property
    def changed_at(self) -> float:
        return max(self.written_ns, self.changed_ns) / 1e9


def _marks(directories: Sequence[Path]) -> Iterator[_Mark]:
    for directory in directories:
        for path in _spec_files(directory):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # replaced at this moment
            yield _Mark(path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def read_vendor(directories: Sequence[Path]) -> Vendor:
    """Read the vendor's spec; a later directory wins over an earlier one, as it does for the engine."""
    for directory in reversed(directories):
        for path in _spec_files(directory):
            spec = _read(path)
            if spec is not None:
                return Vendor(
                    devices={device.name: device.container_edits.device_nodes for device in spec.devices},
                    common=spec.container_edits,
                )
    return Vendor()


def _spec_files(directory: Path) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(_SUFFIXES) and not name.startswith("ds01-"):
            yield directory / name


def _read(path: Path) -> Spec | None:
    """The spec in a file, None when it is of another kind."""
    try:
        # JSON is YAML. The C loader: a spec of the vendor's is some ten kilobytes.
        document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        return None  # replaced at this moment
    except yaml.YAMLError as error:
        raise VendorSpecError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return None
    try:
        return convert(document)
    except Malformed as error:
        raise VendorSpecError(f"cannot use {path}: {error}") from error


def nodes_of(slots: Sequence[SlotDevice], vendor: Vendor, *, dev: Path, proc: Path) -> tuple[Node, ...]:
    """Every node that a container with these slots needs, control nodes included, each once.

    `dev` is where nodes lie when the vendor does not say, `proc` the driver's /proc directory.
    """
    found: dict[str, Node] = {}
    for slot in slots:
        for node in _slot_nodes(slot, vendor, dev, proc):
            if not Path(node.source).exists():
                raise DeviceMissing(f"cannot find the device node {node.source} of {slot.name}")
            found.setdefault(node.path, node)
    if slots:
        for node in vendor.common.device_nodes or tuple(_node(f"/dev/{name}", str(dev)) for name in _CONTROL):
            # A module that is not loaded has no node (nvidia-modeset on most servers), and the engine would refuse it.
            if Path(node.source).exists():
                found.setdefault(node.path, node)
    return tuple(found.values())


def _slot_nodes(slot: SlotDevice, vendor: Vendor, dev: Path, proc: Path) -> tuple[Node, ...]:
    card = _card_path(slot.minor)
    if slot.gi is None:
        named = vendor.card(slot)
        if named is not None:
            return named
    source = vendor.source(card)
    root = str(dev) if source is None else source.removesuffix(card.removeprefix("/dev"))
    nodes = [_node(card, root)]
    if slot.gi is not None and slot.ci is not None:
        instance = proc / "capabilities" / f"gpu{slot.minor}" / "mig" / f"gi{slot.gi}"
        nodes += [
            _node(f"/dev/nvidia-caps/nvidia-cap{_capability(access, slot)}", root)
            for access in (instance / "access", instance / f"ci{slot.ci}" / "access")
        ]
    return tuple(nodes)


def _capability(access: Path, slot: SlotDevice) -> int:
    """The minor of a capability's node, as the driver says."""
    try:
        found = _CAPABILITY.search(access.read_text())
    except FileNotFoundError as error:
        raise DeviceMissing(f"cannot find {access}: the driver no longer has the slice {slot.name}") from error
    if found is None:
        raise DeviceMissing(f"cannot read {access}: it names no DeviceFileMinor")
    return int(found[1])


def _card_path(minor: int) -> str:
    return f"/dev/nvidia{minor}"


def _cards(nodes: tuple[Node, ...]) -> list[str]:
    return [node.path for node in nodes if _CARD.fullmatch(node.path)]


def _node(path: str, root: str) -> Node:
    return Node(path=path, host_path=root + path.removeprefix("/dev"))
