"""Which nodes a slot gets: the vendor's spec where it is right, the device map where it cannot be."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from ds01d.adapters.cdi_vendor import DeviceMissing, Vendor, VendorFiles, VendorSpecError, nodes_of, read_vendor
from ds01d.model.ids import GpuUuid, SlotId
from ds01d.model.permission import SlotDevice
from tests.adapters.machine import CARD0, CARD1, CONTROL, GPU0, SLICE0, SLICE1, Machine, installed

pytestmark = pytest.mark.root


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return installed(tmp_path)


def nodes(
    machine: Machine, *slots: SlotDevice, vendor: Vendor | None = None, dev: Path | None = None
) -> dict[str, str]:
    """Path in the container → path on the host."""
    found = nodes_of(
        slots,
        read_vendor([machine.places.spec.parent]) if vendor is None else vendor,
        dev=Path("/nonexistent") if dev is None else dev,
        proc=machine.places.proc,
    )
    return {node.path: node.source for node in found}


def spec(directory: Path, name: str, **fields: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [], **fields}))
    return file


def device(name: str, *paths: str) -> dict[str, object]:
    return {
        "name": name,
        "containerEdits": {"deviceNodes": [{"path": path, "hostPath": "/dev/null"} for path in paths]},
    }


def test_a_card_gets_the_vendors_nodes_for_its_uuid_and_the_control_nodes(machine: Machine) -> None:
    fake = machine.places.dev
    assert nodes(machine, CARD1) == {f"/dev/{name}": f"{fake}/{name}" for name in ("nvidia1", *CONTROL)}


def test_a_card_keeps_what_else_the_vendor_gives_it(machine: Machine, tmp_path: Path) -> None:
    spec(
        tmp_path / "cdi", "nvidia.json", devices=[device(GPU0, "/dev/nvidia0", "/dev/dri/card1", "/dev/dri/renderD128")]
    )
    found = nodes(machine, CARD0, vendor=read_vendor([tmp_path / "cdi"]))
    assert list(found)[:3] == ["/dev/nvidia0", "/dev/dri/card1", "/dev/dri/renderD128"]


def test_a_card_that_the_vendor_names_by_index_only_is_found_by_its_minor(machine: Machine, tmp_path: Path) -> None:
    spec(tmp_path / "cdi", "nvidia.json", devices=[device("5", "/dev/nvidia1"), device("7", "/dev/nvidia0")])
    assert nodes(machine, CARD0, vendor=read_vendor([tmp_path / "cdi"]))["/dev/nvidia0"] == "/dev/null"


def test_a_minor_that_moved_since_the_vendors_spec_is_taken_from_the_device_map(machine: Machine) -> None:
    moved = msgspec.structs.replace(CARD0, minor=3)
    found = nodes(machine, moved)
    assert found["/dev/nvidia3"] == f"{machine.places.dev}/nvidia3"
    assert "/dev/nvidia0" not in found


def test_a_slice_gets_its_parent_and_its_two_capabilities_from_the_drivers_proc(machine: Machine) -> None:
    fake = machine.places.dev
    # The driver's own numbers for gpu4, gi3 and its ci0, as its /proc tree says.
    instance = machine.places.proc / "capabilities/gpu4/mig/gi3"
    caps = [(path.read_text().split()[1]) for path in (instance / "access", instance / "ci0/access")]
    expected = ["nvidia4", *(f"nvidia-caps/nvidia-cap{cap}" for cap in caps), *CONTROL]
    assert nodes(machine, SLICE0) == {f"/dev/{name}": f"{fake}/{name}" for name in expected}


def test_a_slice_is_not_taken_from_a_vendors_spec_that_is_older_than_the_cut(machine: Machine) -> None:
    capabilities = machine.places.proc / "capabilities/gpu4/mig/gi3"
    (capabilities / "access").write_text("DeviceFileMinor: 1\nDeviceFileMode: 292\n")
    (capabilities / "ci0/access").write_text("DeviceFileMinor: 2\nDeviceFileMode: 292\n")
    caps = [path for path in nodes(machine, SLICE0) if "caps" in path]
    assert caps == ["/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-caps/nvidia-cap2"]


def test_a_card_and_slices_of_another_name_each_node_once(machine: Machine) -> None:
    found = nodes(machine, CARD0, SLICE0, SLICE1)
    assert len(found) == 1 + 1 + 4 + len(CONTROL)


def test_no_slot_gets_no_node(machine: Machine) -> None:
    assert nodes(machine) == {}


def test_without_a_vendors_spec_the_nodes_come_from_the_device_map(machine: Machine) -> None:
    fake = machine.places.dev
    found = nodes(machine, CARD1, SLICE0, vendor=Vendor(), dev=fake)
    assert found["/dev/nvidia1"] == f"{fake}/nvidia1"
    assert {f"/dev/{name}" for name in (*CONTROL, "nvidia4")} < found.keys()


def test_a_control_node_that_does_not_exist_is_left_out(machine: Machine) -> None:
    (machine.places.dev / "nvidia-modeset").unlink()
    assert "/dev/nvidia-modeset" not in nodes(machine, CARD0)
    assert "/dev/nvidia-uvm" in nodes(machine, CARD0)


def test_a_slice_that_the_driver_no_longer_has_is_refused(machine: Machine) -> None:
    gone = msgspec.structs.replace(SLICE0, gi=9)
    with pytest.raises(DeviceMissing, match=r"the driver no longer has the slice .*2g\.20gb@0"):
        nodes(machine, gone)


def test_a_capability_that_says_nothing_is_refused(machine: Machine) -> None:
    (machine.places.proc / "capabilities/gpu4/mig/gi3/access").write_text("DeviceFileMode: 292\n")
    with pytest.raises(DeviceMissing, match="names no DeviceFileMinor"):
        nodes(machine, SLICE0)


def test_a_card_without_a_node_is_refused(machine: Machine) -> None:
    absent = SlotDevice(name=SlotId("GPU-x"), uuid=GpuUuid("GPU-x"), minor=42, gpu_index=0)
    with pytest.raises(DeviceMissing, match="cannot find the device node /nonexistent/nvidia42 of GPU-x"):
        nodes(machine, absent)


# ── reading the vendor's file ────────────────────────────────────────────────────────────────────────────────────────


def test_the_directory_may_be_missing(tmp_path: Path) -> None:
    assert read_vendor([tmp_path / "none", tmp_path]) == Vendor()


def test_a_later_directory_wins(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "nvidia.yaml", devices=[device("old", "/dev/nvidia0")])
    spec(tmp_path / "run", "nvidia.yaml", devices=[device("new", "/dev/nvidia0")])
    assert list(read_vendor([tmp_path / "etc", tmp_path / "run"]).devices) == ["new"]


def test_other_kinds_other_suffixes_and_our_own_files_are_passed_over(tmp_path: Path) -> None:
    spec(tmp_path, "a.json", kind="nvidia.com/gds", devices="not even a list")
    spec(tmp_path, "ds01-k1.json", devices=[device("ours")])
    spec(tmp_path, "b.json.new", devices=[device("half")])
    (tmp_path / "c.yaml").write_text("- a list\n")
    spec(tmp_path, "d.yaml", devices=[device("it", "/dev/nvidia0")])
    assert list(read_vendor([tmp_path]).devices) == ["it"]


def test_fields_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    edits = {"env": ["A=b"], "intelRdt": {}, "additionalGids": [44], "netDevices": []}
    spec(tmp_path, "nvidia.json", cdiVersion="1.1.0", containerEdits=edits, annotations={"a": "b"})
    assert read_vendor([tmp_path]).common.env == ("A=b",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: nvidia.com/gpu\ndevices: all\ncdiVersion: 0.5.0\n", r"Expected `array`, got `str` - at `\$\.devices`"),
        (
            "kind: nvidia.com/gpu\ncdiVersion: 0.5.0\ndevices:\n  - name: 0\n    containerEdits: {}\n",
            r"Expected `str`, got `int` - at `\$\.devices\[0\]\.name`",
        ),
        ("kind: nvidia.com/gpu\ndevices: []\n", "missing required field `cdiVersion`"),
        ("kind: nvidia.com/gpu\n  devices: [\n", r"cannot read .*nvidia\.yaml: .* line 2"),
        ("\0", r"cannot read .*nvidia\.yaml: "),
    ],
)
def test_a_broken_spec_is_refused_with_file_and_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    with pytest.raises(VendorSpecError, match=words) as caught:
        read_vendor([tmp_path])
    assert str(tmp_path / "nvidia.yaml") in str(caught.value)


def test_yaml_that_asks_for_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text("kind: !!python/object/apply:os.getpid []\n")
    with pytest.raises(VendorSpecError):
        read_vendor([tmp_path])


# --- read again


def later() -> float:
    """A moment by which every file of this test has lain there for a while."""
    return time.time() + 60


def test_a_spec_is_parsed_once_as_long_as_it_stays_as_it_is(tmp_path: Path) -> None:
    spec(tmp_path, "nvidia.json", devices=[device(GPU0, "/dev/nvidia0")])
    vendor = VendorFiles([tmp_path], clock=later)

    assert vendor.read() is vendor.read()


def test_a_spec_that_changed_is_parsed_again(tmp_path: Path) -> None:
    file = spec(tmp_path, "nvidia.json", devices=[device("a", "/dev/nvidia0")])
    vendor = VendorFiles([tmp_path], clock=later)
    seen = [list(vendor.read().devices)]

    spec(tmp_path, "nvidia.json", devices=[device("b", "/dev/nvidia0")])
    seen.append(list(vendor.read().devices))
    spec(tmp_path, "new.json", devices=[device("c", "/dev/nvidia0")]).replace(file)
    seen.append(list(vendor.read().devices))
    spec(tmp_path, "a-first.json", devices=[device("d", "/dev/nvidia0")])
    seen.append(list(vendor.read().devices))
    for path in tmp_path.iterdir():
        path.unlink()
    seen.append(list(vendor.read().devices))

    assert seen == [["a"], ["b"], ["c"], ["d"], []]


def test_a_spec_that_changed_a_moment_ago_is_not_relied_on(tmp_path: Path) -> None:
    spec(tmp_path, "nvidia.json", devices=[device(GPU0, "/dev/nvidia0")])
    vendor = VendorFiles([tmp_path])

    assert vendor.read() is not vendor.read()


def test_a_spec_that_breaks_is_refused_though_it_was_good_before(tmp_path: Path) -> None:
    file = spec(tmp_path, "nvidia.json", devices=[device(GPU0, "/dev/nvidia0")])
    vendor = VendorFiles([tmp_path], clock=later)
    vendor.read()

    file.write_text("kind: [")

    with pytest.raises(VendorSpecError):
        vendor.read()
