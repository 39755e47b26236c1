"""What the engine is told at a create: always a document of our own making, never a caller's. Pure.

JSON keys match in any case on the engine's side and repeated ones merge, so nothing of a user's is ever passed on as
JSON: his words appear as values only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiodocker.types import JSONValue

from ds01d.adapters.docker_reading import LABEL
from ds01d.core.effects import CreateContainer
from ds01d.model.container import ContainerSpec
from ds01d.model.ids import Key

#: Where our init stands in every container: a file, because an image may lack any directory.
INIT_TARGET: Final = "/.ds01-init"
DRIVER_DEVICE: Final = "ds01/driver=all"
WORKING_DIR: Final = "/workspace"
_NANO: Final = 1_000_000_000

Document = dict[str, JSONValue]


def gpu_device(key: Key) -> str:
    """The CDI name of one container's own devices, resolved anew at each start."""
    return f"ds01/gpu={key}"


def create_document(order: CreateContainer, init: Path) -> Document:
    """The body of the create; `init` is the host's path of our init."""
    return {
        "Image": order.spec.image,
        "User": f"{order.uid}:{order.gid}",
        "WorkingDir": WORKING_DIR,
        "Entrypoint": [INIT_TARGET],
        "Cmd": [],
        # An image may name another; our init passes this one on to every process.
        "StopSignal": "SIGTERM",
        "Labels": _labels(order),
        # Images for GPUs say `all` themselves; under the nvidia runtime that would be every GPU there is.
        "Env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "HostConfig": _host(order.spec, order.key, init),
    }


def _labels(order: CreateContainer) -> Document:
    return {
        f"{LABEL}id": order.container,
        f"{LABEL}managed": "true",
        f"{LABEL}user": order.user,
        f"{LABEL}uid": str(order.uid),
        f"{LABEL}gid": str(order.gid),
        f"{LABEL}name": order.name.rpartition("._.")[0] or order.name,
        f"{LABEL}interface": order.spec.interface,
        f"{LABEL}created_at": datetime.fromtimestamp(order.created_at, UTC).isoformat(timespec="seconds"),
        f"{LABEL}key": order.key,
    }


def _host(spec: ContainerSpec, key: Key, init: Path) -> Document:
    limits = spec.limits
    devices = [gpu_device(key), DRIVER_DEVICE] if spec.gpus is not None else [gpu_device(key)]
    host: Document = {
        # A mount of type bind refuses a missing source; the older form makes it, as root.
        "Mounts": [
            _bind(str(init), INIT_TARGET, read_only=True),
            *(_bind(mount.source, mount.target, read_only=mount.read_only) for mount in spec.mounts),
        ],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": devices}],
        "NetworkMode": "host" if spec.network_host else "bridge",
        "SecurityOpt": ["no-new-privileges"],
        "RestartPolicy": {"Name": "no"},
        "CgroupParent": spec.cgroup_parent,
    }
    if limits.cpus is not None:
        host["NanoCpus"] = round(limits.cpus * _NANO)
    if limits.memory is not None:
        host["Memory"] = limits.memory
        # Without memory the engine refuses a limit on memory and swap together; left out, it would be twice the memory.
        host["MemorySwap"] = -1 if limits.memory_swap is None else limits.memory_swap
    if limits.shm_size is not None:
        host["ShmSize"] = limits.shm_size
    if limits.pids is not None:
        host["PidsLimit"] = limits.pids
    return host


def _bind(source: str, target: str, *, read_only: bool) -> Document:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        # Both are the engine's defaults, said so that another default changes nothing.
        "BindOptions": {"Propagation": "rprivate", "CreateMountpoint": False},
    }
