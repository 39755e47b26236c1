"""What the engine is told at a create, to the last key."""

from pathlib import Path

from ds01d.adapters.docker_document import create_document
from ds01d.core.effects import CreateContainer
from ds01d.model.container import ContainerLimits, ContainerSpec, Mount
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, Key, OrderId, Uid

WORKSPACE = Mount(source="/home/alice/workspace", target="/workspace", device=1, inode=2)
DATA = Mount(source="/data/big", target="/data", device=1, inode=3, read_only=True)


def document(spec: ContainerSpec) -> dict[str, object]:
    order = CreateContainer(
        container=ContainerId("l-1"),
        order=OrderId("l-2"),
        timeout_s=60,
        key=Key("k1"),
        name="train._.1001",
        user="alice",
        uid=Uid(1001),
        gid=1002,
        spec=spec,
        created_at=0.0,
    )
    return {**create_document(order, Path("/usr/lib/ds01/ds01-init"))}


def bind(source: str, target: str, *, read_only: bool) -> dict[str, object]:
    options = {"Propagation": "rprivate", "CreateMountpoint": False}
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only, "BindOptions": options}


def test_a_container_with_a_gpu_and_everything() -> None:
    limits = ContainerLimits(cpus=1.5, memory=2**30, memory_swap=2**31, shm_size=2**20, pids=100)
    spec = ContainerSpec(
        image="bb:latest",
        gpus=GpuRequest(count=2),
        mounts=(WORKSPACE, DATA),
        limits=limits,
        cgroup_parent="ds01-lab-alice.slice",
        interface="orchestration",
    )
    assert document(spec) == {
        "Image": "bb:latest",
        "User": "1001:1002",
        "WorkingDir": "/workspace",
        "Entrypoint": ["/.ds01-init"],
        "Cmd": [],
        "StopSignal": "SIGTERM",
        "Env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "Labels": {
            "ds01.id": "l-1",
            "ds01.managed": "true",
            "ds01.user": "alice",
            "ds01.uid": "1001",
            "ds01.gid": "1002",
            "ds01.name": "train",
            "ds01.interface": "orchestration",
            "ds01.created_at": "1970-01-01T00:00:00+00:00",
            "ds01.key": "k1",
        },
        "HostConfig": {
            "Mounts": [
                bind("/usr/lib/ds01/ds01-init", "/.ds01-init", read_only=True),
                bind("/home/alice/workspace", "/workspace", read_only=False),
                bind("/data/big", "/data", read_only=True),
            ],
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["ds01/gpu=k1", "ds01/driver=all"]}],
            "NetworkMode": "bridge",
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},
            "CgroupParent": "ds01-lab-alice.slice",
            "NanoCpus": 1_500_000_000,
            "Memory": 2**30,
            "MemorySwap": 2**31,
            "ShmSize": 2**20,
            "PidsLimit": 100,
        },
    }


def test_without_a_gpu_it_asks_for_the_guard_alone_and_without_limits_it_names_none() -> None:
    host = document(ContainerSpec(image="bb:latest", gpus=None, network_host=True))["HostConfig"]
    assert isinstance(host, dict)
    assert host["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["ds01/gpu=k1"]}]
    assert host["NetworkMode"] == "host"
    assert not {"NanoCpus", "Memory", "MemorySwap", "ShmSize", "PidsLimit"} & host.keys()


def test_swap_without_memory_is_left_out_because_the_engine_would_refuse_it() -> None:
    spec = ContainerSpec(image="bb:latest", gpus=None, limits=ContainerLimits(memory_swap=2**31))
    host = document(spec)["HostConfig"]
    assert isinstance(host, dict)
    assert "MemorySwap" not in host


def test_memory_without_a_word_about_swap_leaves_swap_unlimited() -> None:
    spec = ContainerSpec(image="bb:latest", gpus=None, limits=ContainerLimits(memory=2**30))
    host = document(spec)["HostConfig"]
    assert isinstance(host, dict)
    assert host["MemorySwap"] == -1
