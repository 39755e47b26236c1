"""Leaves in a box what installing a GPU driver would: device nodes, the driver's /proc tree, the vendor's CDI spec.

Runs inside the box, at each boot, from the layout that also seeds the mock NVML. It knows no NVML and no daemon.
"""

import json
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

DRIVER = "570.86.15"
CONTROL = ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools")
LIBRARIES = ("libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so")
LIBRARY_DIR = "/usr/lib/x86_64-linux-gnu"
HOOK = "/usr/bin/nvidia-cdi-hook"

#: As the driver numbers its capabilities (/proc/driver/nvidia-caps/mig-minors); 1 and 2 are config and monitor.
FIRST_CAP, CAPS_PER_GPU, CAPS_PER_INSTANCE = 3, 135, 9


@dataclass(frozen=True, slots=True)
class Slice:
    uuid: str
    gi: int
    ci: int

    def caps(self, minor: int) -> tuple[int, int]:
        """The minors of the two capability nodes, GPU instance and compute instance, on the card of that minor."""
        gi = FIRST_CAP + CAPS_PER_GPU * minor + CAPS_PER_INSTANCE * self.gi
        return gi, gi + 1 + self.ci


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str
    name: str
    minor: int
    pci: str
    slices: tuple[Slice, ...] | None


def read_layout(path: Path) -> tuple[Gpu, ...]:
    """The cards of a layout file; `slices` is None unless the card is in MIG mode."""
    return tuple(
        Gpu(
            uuid=g["uuid"],
            name=g["name"],
            minor=g["minor"],
            pci=g["pci"],
            slices=g["mig"] and tuple(Slice(uuid=s["uuid"], gi=s["gi"], ci=s["ci"]) for s in g["mig"]["slices"]),
        )
        for g in json.loads(path.read_text())["gpus"]
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where things go; a test gives a directory of its own."""

    dev: Path = Path("/dev/fake")
    proc: Path = Path("/run/fake-nvidia/proc/driver/nvidia")
    libraries: Path = Path("/usr/lib/fake-nvidia/lib")
    hook: Path = Path(HOOK)
    spec: Path = Path("/etc/cdi/nvidia.yaml")


def device_names(gpus: tuple[Gpu, ...]) -> list[str]:
    """Every device node the driver would make, relative to /dev."""
    names = [*CONTROL, "nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap2"]
    for gpu in gpus:
        names.append(f"nvidia{gpu.minor}")
        names += [f"nvidia-caps/nvidia-cap{cap}" for s in gpu.slices or () for cap in s.caps(gpu.minor)]
    return names


def make_nodes(gpus: tuple[Gpu, ...], dev: Path) -> None:
    """Stand-ins that behave like /dev/null: nodes with NVIDIA's own major can be made but not opened."""
    shutil.rmtree(dev, ignore_errors=True)
    for name in device_names(gpus):
        path = dev / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.chmod(0o444 if "caps" in name else 0o666)


def make_proc(gpus: tuple[Gpu, ...], proc: Path) -> None:
    """The part of /proc/driver/nvidia that names minors and capabilities."""
    shutil.rmtree(proc, ignore_errors=True)
    files = {proc / "version": f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}\n"}
    for gpu in gpus:
        files[proc / "gpus" / gpu.pci / "information"] = (
            f"Model: \t\t {gpu.name}\nIRQ:   \t\t {16 + gpu.minor}\nGPU UUID: \t {gpu.uuid}\n"
            f"Bus Type: \t PCIe\nBus Location: \t {gpu.pci}\nDevice Minor: \t {gpu.minor}\nGPU Excluded:\t No\n"
        )
        for s in gpu.slices or ():
            instance = proc / "capabilities" / f"gpu{gpu.minor}" / "mig" / f"gi{s.gi}"
            for path, cap in zip(
                (instance / "access", instance / f"ci{s.ci}" / "access"), s.caps(gpu.minor), strict=True
            ):
                files[path] = f"DeviceFileMinor: {cap}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_driver_files(places: Places) -> None:
    """Small files for the spec to mount, and a hook program that takes the vendor's arguments and does nothing."""
    places.libraries.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        (places.libraries / f"{library}.{DRIVER}").write_text(f"stand-in for {library} {DRIVER}\n")
    places.hook.write_text(
        "#!/bin/sh\n# Stands in for the vendor's hook; takes its arguments, changes nothing.\nexit 0\n"
    )
    places.hook.chmod(0o755)


def _nodes(names: list[str], dev: Path, pad: str) -> list[str]:
    lines = [f"{pad}deviceNodes:"]
    for name in names:
        lines += [f"{pad}    - path: /dev/{name}", f"{pad}      hostPath: {dev}/{name}"]
    return lines


def _device(name: str, nodes: list[str], dev: Path) -> list[str]:
    # A digit alone would be read as a number.
    shown = f'"{name}"' if name[0].isdigit() else name
    return [f"    - name: {shown}", "      containerEdits:", *_nodes(nodes, dev, "        ")]


def _hook(places: Places, *args: str) -> list[str]:
    pad = " " * 12
    return [
        "        - hookName: createContainer",
        f"          path: {places.hook}",
        "          args:",
        *(f"{pad}- {word}" for word in (places.hook.name, *args)),
        "          env:",
        f"{pad}- NVIDIA_CTK_DEBUG=false",
    ]


def spec_text(gpus: tuple[Gpu, ...], places: Places) -> str:
    """The spec `nvidia-ctk cdi generate --device-name-strategy=index,uuid` would print.

    A card in MIG mode is not named whole; its slices are `card:slice`, with the parent's node and two capabilities.
    """
    lines = ["---", "cdiVersion: 0.5.0", "kind: nvidia.com/gpu", "devices:"]
    everything: list[str] = []
    for index, gpu in enumerate(gpus):
        if gpu.slices is None:
            named = [((str(index), gpu.uuid), [f"nvidia{gpu.minor}"])]
        else:
            named = [
                (
                    (f"{index}:{number}", s.uuid),
                    [f"nvidia{gpu.minor}", *(f"nvidia-caps/nvidia-cap{cap}" for cap in s.caps(gpu.minor))],
                )
                for number, s in enumerate(gpu.slices)
            ]
        for names, nodes in named:
            for name in names:
                lines += _device(name, nodes, places.dev)
            everything += [node for node in nodes if node not in everything]
    lines += _device("all", everything, places.dev)
    lines += ["containerEdits:", "    env:", f"        - NVIDIA_CTK_LIBCUDA_DIR={LIBRARY_DIR}"]
    lines += ["        - NVIDIA_VISIBLE_DEVICES=void", *_nodes(list(CONTROL), places.dev, "    "), "    hooks:"]
    lines += _hook(places, "create-symlinks", "--link", f"libcuda.so.1::{LIBRARY_DIR}/libcuda.so")
    lines += _hook(places, "enable-cuda-compat", f"--host-driver-version={DRIVER}")
    lines += _hook(places, "update-ldcache", "--folder", LIBRARY_DIR)
    lines += _hook(places, "disable-device-node-modification")
    lines += ["    mounts:"]
    for library in LIBRARIES:
        lines += [
            f"        - hostPath: {places.libraries}/{library}.{DRIVER}",
            f"          containerPath: {LIBRARY_DIR}/{library}.{DRIVER}",
            "          options:",
            *(f"            - {option}" for option in ("ro", "nosuid", "nodev", "rbind", "rprivate")),
        ]
    return "\n".join(lines) + "\n"


def install(layout: Path, places: Places) -> None:
    """Makes all of it anew."""
    gpus = read_layout(layout)
    make_nodes(gpus, places.dev)
    make_proc(gpus, places.proc)
    make_driver_files(places)
    places.spec.parent.mkdir(parents=True, exist_ok=True)
    fresh = places.spec.with_suffix(".new")
    fresh.write_text(spec_text(gpus, places))
    fresh.rename(places.spec)


if __name__ == "__main__":
    install(Path(sys.argv[1]), Places())
