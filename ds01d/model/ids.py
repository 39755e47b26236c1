"""The names of things, each its own type, so that a container is never taken for a GPU."""

from typing import NewType

#: A Unix user id. Who somebody is; names are for show.
Uid = NewType("Uid", int)
#: Ours, `lineage-counter`: never used twice, not even after a roll-back of the state file.
ContainerId = NewType("ContainerId", str)
AllocationId = NewType("AllocationId", str)
OperationId = NewType("OperationId", str)
OrderId = NewType("OrderId", str)
#: The engine's full container id, 64 hexadecimal digits.
EngineId = NewType("EngineId", str)
#: The `ID` of the engine's `/info`: another value means that Docker was installed anew.
EngineName = NewType("EngineName", str)
#: Random, one per container: the name of its CDI device, its grant and its spec.
Key = NewType("Key", str)
#: A card's UUID as NVML writes it, `GPU-…`.
GpuUuid = NewType("GpuUuid", str)
#: A slot's identity: the card's UUID, or `UUID/profile@placement` for a MIG slice.
SlotId = NewType("SlotId", str)
