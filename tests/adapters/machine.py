"""A machine as a GPU driver leaves it, in a directory: nodes, the driver's /proc tree, the vendor's spec."""

from dataclasses import dataclass
from pathlib import Path

from ds01d.adapters.cdi import Permissions
from ds01d.model.ids import EngineId, GpuUuid, Key, SlotId
from ds01d.model.permission import MountProof, Permission, SlotDevice
from tests.testbed.gpus import Places, install

LAYOUT = Path(__file__).parents[1] / "testbed/layouts/default.json"
CONTAINER = EngineId("c0ffee" * 10 + "abcd")
GPU0 = GpuUuid("GPU-7c1e0a52-3f4b-4d19-9a86-51d2c0be0000")
GPU1 = GpuUuid("GPU-2b9d64f7-8a03-4c71-b5ee-06f3a9170001")
GPU4 = GpuUuid("GPU-58d3f9e6-0b72-4fa5-96c4-e21ab7850004")
CARD0 = SlotDevice(name=SlotId(GPU0), uuid=GPU0, minor=0, gpu_index=0)
CARD1 = SlotDevice(name=SlotId(GPU1), uuid=GPU1, minor=1, gpu_index=1)
SLICE0 = SlotDevice(name=SlotId(f"{GPU4}/2g.20gb@0"), uuid=GPU4, minor=4, gpu_index=4, gi=3, ci=0)
SLICE1 = SlotDevice(name=SlotId(f"{GPU4}/2g.20gb@2"), uuid=GPU4, minor=4, gpu_index=4, gi=4, ci=0)
CONTROL = ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools")


@dataclass(frozen=True, slots=True)
class Machine:
    root: Path

    @property
    def places(self) -> Places:
        return Places(
            dev=self.root / "dev/fake",
            proc=self.root / "proc",
            libraries=self.root / "lib",
            hook=self.root / "nvidia-cdi-hook",
            spec=self.root / "etc-cdi/nvidia.yaml",
        )

    @property
    def grants(self) -> Path:
        return self.root / "run/ds01/grant"

    @property
    def specs(self) -> Path:
        return self.root / "run/cdi"

    def permissions(self, *, dev: Path = Path("/nonexistent")) -> Permissions:
        return Permissions(
            grant_dir=self.grants,
            cdi_dir=self.specs,
            guard=Path("/usr/lib/ds01/cdi-guard"),
            vendor_dirs=(self.places.spec.parent, self.specs),
            dev=dev,
            proc=self.places.proc,
        )


def installed(root: Path) -> Machine:
    """Make one, from the layout that the test bed's servers have; needs root for the nodes."""
    machine = Machine(root)
    install(LAYOUT, machine.places)
    return machine


def permission(
    *slots: SlotDevice, key: str = "k1", generation: str = "8f3a.1", mounts: tuple[MountProof, ...] = ()
) -> Permission:
    return Permission(
        key=Key(key), container_id=CONTAINER, generation=generation, uid=1001, gid=1002, slots=slots, mounts=mounts
    )
