#!/usr/bin/env python3
"""Drives the mock NVML library: writes its state file, from any process, while others read it.

People use it as `mock.py create|show|busy|idle …`, tests as `Mock`. The library must be on LD_LIBRARY_PATH and the
state file named by NVML_MOCK_STATE (else /run/nvml-mock/state) where the reader starts. Standard library only.
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import sys
from pathlib import Path
from typing import Final, cast

if __package__:
    from tests.testbed.nvml import layout
    from tests.testbed.nvml.cards import GpuLayout, Layout, SliceLayout, profiles_of
else:  # run as a script inside a box
    import layout  # type: ignore[import-not-found,no-redef]
    from cards import GpuLayout, Layout, SliceLayout, profiles_of  # type: ignore[import-not-found,no-redef]

MIB: Final = 2**20
KINDS: Final = {"compute": 0, "graphics": 1, "mps": 2}
DRIVER_NOT_LOADED, GPU_IS_LOST = 9, 15


class MockSlice:
    """One slice of one card; every store is seen by the library's next call."""

    def __init__(self, row: layout.Slice) -> None:
        self._row = row

    @property
    def uuid(self) -> str:
        """The MIG-UUID."""
        return str(self._row.uuid.decode())

    @uuid.setter
    def uuid(self, value: str) -> None:
        self._row.uuid = value.encode()

    @property
    def gi(self) -> int:
        """The GPU instance id; ids are used again as soon as an instance is gone."""
        return int(self._row.gi)

    @gi.setter
    def gi(self, value: int) -> None:
        self._row.gi = value

    @property
    def held_mib(self) -> int:
        """Memory in use with no process to show for it."""
        return int(self._row.held) // MIB

    @held_mib.setter
    def held_mib(self, value: int) -> None:
        self._row.held = value * MIB

    def vanish(self) -> None:
        """Destroy the slice, as another tool would do it behind our back."""
        self._row.used = 0


class MockGpu:
    """One card; every store is seen by the library's next call."""

    def __init__(self, row: layout.Gpu) -> None:
        self._row = row

    @property
    def uuid(self) -> str:
        """The card's UUID."""
        return str(self._row.uuid.decode())

    @property
    def lost(self) -> bool:
        """Fell off the bus: every call answers GPU_IS_LOST."""
        return bool(self._row.lost)

    @lost.setter
    def lost(self, value: bool) -> None:
        self._row.lost = int(value)

    @property
    def present(self) -> bool:
        """Listed at all; switch it off for a card that is gone after the driver was loaded anew."""
        return bool(self._row.present)

    @present.setter
    def present(self, value: bool) -> None:
        self._row.present = int(value)

    @property
    def index(self) -> int:
        """Its place in NVML's order."""
        return int(self._row.index)

    @index.setter
    def index(self, value: int) -> None:
        self._row.index = value

    @property
    def minor(self) -> int:
        """N of /dev/nvidiaN."""
        return int(self._row.minor)

    @minor.setter
    def minor(self, value: int) -> None:
        self._row.minor = value

    @property
    def held_mib(self) -> int:
        """Memory in use with no process to show for it."""
        return int(self._row.held) // MIB

    @held_mib.setter
    def held_mib(self, value: int) -> None:
        self._row.held = value * MIB

    @property
    def reserved_mib(self) -> int:
        """What the driver keeps for itself; the v1 figure counts it as used, the v2 figure does not."""
        return int(self._row.reserved) // MIB

    @reserved_mib.setter
    def reserved_mib(self, value: int) -> None:
        self._row.reserved = value * MIB

    @property
    def utilisation_pct(self) -> int:
        """Share of the window in which a kernel ran."""
        return int(self._row.utilisation)

    @utilisation_pct.setter
    def utilisation_pct(self, value: int) -> None:
        self._row.utilisation = value

    @property
    def energy_mj(self) -> int:
        """Millijoules since the driver was loaded."""
        return int(self._row.energy)

    @energy_mj.setter
    def energy_mj(self, value: int) -> None:
        self._row.energy = value

    @property
    def mig(self) -> bool:
        """MIG mode."""
        return bool(self._row.mig)

    @mig.setter
    def mig(self, value: bool) -> None:
        self._row.mig = int(value)

    @property
    def slices(self) -> list[MockSlice]:
        """The slices there are now."""
        return [MockSlice(row) for row in self._row.slices if row.used]

    def slice(self, gi: int) -> MockSlice:
        """Find the slice of a GPU instance."""
        return next(s for s in self.slices if s.gi == gi)

    def add_slice(self, spec: SliceLayout) -> MockSlice:
        """Cut one more slice, as another tool would do it behind our back."""
        at, row = next((i, row) for i, row in enumerate(self._row.slices) if not row.used)
        named = [p for p in self._row.profiles if p.used and p.name.decode() == f"MIG {spec['profile']}"]
        if not named:
            have = (
                ", ".join(p.name.decode().removeprefix("MIG ") for p in self._row.profiles if p.used)
                or "no MIG profile at all"
            )
            raise ValueError(f"cannot cut a {spec['profile']}: {self._row.name.decode()} has {have}")
        row.index, row.gi, row.ci = at, spec["gi"], spec["ci"]
        row.profile_id, row.ci_compute = named[0].id, named[0].compute
        row.start, row.size = spec["start"], spec["size"]
        row.total, row.held, row.uuid = spec["memory_mib"] * MIB, 0, spec["uuid"].encode()
        row.used = 1
        return MockSlice(row)

    def rename_profile(self, profile: str, name: str) -> None:
        """Let the card's table call a profile something else."""
        next(p for p in self._row.profiles if p.name.decode() == f"MIG {profile}").name = name.encode()

    def add_process(
        self, pid: int, mib: int | None, gi: int | None = None, *, kind: str = "compute", lingers: bool = False
    ) -> None:
        """Show a process; it goes when the pid ends unless it lingers. `mib` None = the driver does not say."""
        if self._row.process_count >= layout.PROCESSES:
            raise ValueError(f"cannot show more than {layout.PROCESSES} processes on one card")
        row = self._row.processes[self._row.process_count]
        row.pid, row.kind, row.lingers = pid, KINDS[kind], int(lingers)
        row.gi = layout.NO_MIG if gi is None else gi
        row.ci = layout.NO_MIG if gi is None else next(s._row.ci for s in self.slices if s.gi == gi)
        row.used = layout.NO_FIGURE if mib is None else mib * MIB
        self._row.process_count += 1

    def clear_processes(self) -> None:
        """Show no process any more."""
        self._row.process_count = 0


class Mock:
    """The state file, mapped: what the tests tell the library to say."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self.path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != ctypes.sizeof(layout.State):
                raise ValueError(f"cannot use {path}: it is not a state file of this mock, make it anew")
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(layout.State), mmap.MAP_SHARED)
        self._state = layout.State.from_buffer(self._map)
        if self._state.magic != layout.MAGIC or self._state.size != ctypes.sizeof(layout.State):
            raise ValueError(f"cannot use {path}: it is not a state file of this mock, make it anew")

    @classmethod
    def create(cls, path: Path | str, layout_json: Layout | Path | str) -> "Mock":
        """Make the file from a layout (a value, or a JSON file). Who reads an older one sees the driver reloaded."""
        if isinstance(layout_json, (Path, str)):
            spec = cast("Layout", json.loads(Path(layout_json).read_text()))
        else:
            spec = layout_json
        path = Path(path)
        fresh = path.with_name(f"{path.name}.new")
        state = layout.State(magic=layout.MAGIC, size=ctypes.sizeof(layout.State), generation=1)
        state.driver, state.nvml = b"570.86.15", b"12.570.86.15"
        fresh.write_bytes(bytes(state))
        mock = cls(fresh)
        for gpu in spec["gpus"]:
            mock.add_gpu(gpu)
        if path.exists():
            with contextlib.suppress(ValueError):  # not one of ours: nobody reads it
                cls(path).unload_driver()
        fresh.rename(path)
        mock.path = path
        return mock

    def add_gpu(self, spec: GpuLayout) -> MockGpu:
        """Plug one more card in."""
        at = self._state.gpu_count
        row = self._state.gpus[at]
        row.index, row.minor = at, spec["minor"]
        row.bus = int(spec["pci"].split(":")[1], 16) if "pci" in spec else 0x10 + at
        row.uuid, row.name = spec["uuid"].encode(), spec["name"].encode()
        row.total, row.reserved = spec["memory_mib"] * MIB, 0
        row.power, row.power_limit, row.temperature = 70_000, 700_000, 35
        row.nvlink = 0
        for place, (number, key, name, compute, size, instances, mib) in zip(
            row.profiles, profiles_of(spec["name"], spec["memory_mib"]), strict=False
        ):
            place.number, place.id, place.name = number, key, f"MIG {name}".encode()
            place.compute, place.size, place.instances, place.memory = compute, size, instances, mib
            place.used = 1
        gpu = MockGpu(row)
        mig = spec["mig"]
        gpu.mig = mig is not None
        for part in mig["slices"] if mig is not None else ():
            gpu.add_slice(part)
        gpu.present = True
        self._state.gpu_count = at + 1
        return gpu

    def gpu(self, i: int) -> MockGpu:
        """Give the card in row i (the layout's order, whatever its index is now)."""
        if i >= self._state.gpu_count:
            raise IndexError(f"there is no GPU {i}, only {self._state.gpu_count}")
        return MockGpu(self._state.gpus[i])

    @property
    def gpus(self) -> list[MockGpu]:
        """All rows, present or not."""
        return [self.gpu(i) for i in range(self._state.gpu_count)]

    def join_nvlink(self, *rows: int) -> None:
        """Join these cards by NVLink, each with each."""
        for row in rows:
            self._state.gpus[row].nvlink |= sum(1 << other for other in rows if other != row)

    def fault(self, function: str, gpu: int = -1, code: int = 0, delay_ms: int = 0, times: int = -1) -> None:
        """Let calls of a C function (or `*`) on a card (-1: on any, or on none) be slow, fail, or both."""
        row = next((f for f in self._state.faults if not f.used), None)
        if row is None:
            raise ValueError(f"cannot keep more than {layout.FAULTS} faults; clear_faults() first")
        row.function, row.gpu, row.code, row.delay, row.times = function.encode(), gpu, code, delay_ms, times
        row.used = 1

    def clear_faults(self) -> None:
        """Answer as usual again; a call that is already hanging goes on hanging."""
        for row in self._state.faults:
            row.used = 0

    def unload_driver(self, init_result: int = DRIVER_NOT_LOADED) -> None:
        """From now on nvmlInit answers this code, and everything else UNINITIALIZED."""
        self._state.init_result = init_result

    def load_driver(self) -> None:
        """Take the driver back; whoever was initialised before has to do it again."""
        self._state.generation += 1
        self._state.init_result = 0

    def event(self, gpu: int, kind: int, data: int, gi: int | None = None) -> None:
        """Put an NVML event into the ring: 0x8 = Xid `data`, 0x100 = the MIG layout changed."""
        row = self._state.events[self._state.event_head % layout.EVENTS]
        row.gpu, row.type, row.data = gpu, kind, data
        row.gi, row.ci = (layout.NO_MIG, layout.NO_MIG) if gi is None else (gi, 0)
        self._state.event_head += 1

    @property
    def calls(self) -> int:
        """Calls made to the library so far, by every process."""
        return int(self._state.calls)

    @property
    def memory_v2(self) -> bool:
        """Whether nvmlDeviceGetMemoryInfo_v2 exists; older drivers have the first one only."""
        return not self._state.no_memory_v2

    @memory_v2.setter
    def memory_v2(self, value: bool) -> None:
        self._state.no_memory_v2 = int(not value)

    @property
    def permitted(self) -> bool:
        """Whether the caller counts as root for what only root may ask."""
        return not self._state.no_permission

    @permitted.setter
    def permitted(self, value: bool) -> None:
        self._state.no_permission = int(not value)

    def show(self) -> str:
        """Tell the whole state in a few lines."""
        state = self._state
        driver = f"driver {state.driver.decode()}" if not state.init_result else "driver not loaded"
        lines = [f"{driver}, {state.gpu_count} GPUs, {state.calls} calls"]
        for row in (self._state.gpus[i] for i in range(state.gpu_count)):
            marks = [word for word, on in (("absent", not row.present), ("lost", row.lost), ("MIG", row.mig)) if on]
            lines.append(
                f"{row.index}  {row.uuid.decode()}  {row.name.decode()}  {row.total // MIB} MiB  {' '.join(marks)}"
            )
            lines += [
                f"   gi {s.gi} ci {s.ci} at {s.start}+{s.size}  {s.uuid.decode()}  {s.total // MIB} MiB"
                for s in row.slices
                if s.used and row.mig
            ]
            for p in row.processes[: row.process_count]:
                used = "?" if p.used == layout.NO_FIGURE else p.used // MIB
                lines.append(f"   pid {p.pid}  {used} MiB" + ("" if p.gi == layout.NO_MIG else f"  gi {p.gi}"))
        lines += [
            f"fault: {f.function.decode()} gpu {f.gpu} code {f.code} delay {f.delay} ms, {f.times} left"
            for f in state.faults
            if f.used
        ]
        return "\n".join(lines)


def main() -> int:
    """Run one word for people."""
    parser = argparse.ArgumentParser(description="drive the mock NVIDIA driver")
    words = parser.add_subparsers(dest="word", required=True)
    arguments: dict[str, tuple[str, ...]] = {
        "create": ("layout",), "show": (), "busy": ("gpu", "pid", "mib"), "idle": ("gpu",),
        "lose": ("gpu",), "find": ("gpu",), "unload": (), "load": (),
    }  # fmt: skip
    for name_of_word, names in arguments.items():
        sub = words.add_parser(name_of_word)
        sub.add_argument("file", type=Path)
        for name in names:
            sub.add_argument(name, type=Path if name == "layout" else int)
        if name_of_word == "busy":
            sub.add_argument("--gi", type=int, help="the GPU instance, on a card that is cut")
            sub.add_argument("--lingers", action="store_true", help="stay listed after the process has ended")
    args = parser.parse_args()
    mock = Mock.create(args.file, args.layout) if args.word == "create" else Mock(args.file)
    match cast("str", args.word):
        case "busy":
            mock.gpu(args.gpu).add_process(args.pid, args.mib, args.gi, lingers=args.lingers)
        case "idle":
            mock.gpu(args.gpu).clear_processes()
        case "lose" | "find" as word:
            mock.gpu(args.gpu).lost = word == "lose"
        case "unload":
            mock.unload_driver()
        case "load":
            mock.load_driver()
        case _:
            print(mock.show())
    return 0


if __name__ == "__main__":
    sys.exit(main())
