"""The state as bytes, and back. Where the bytes lie, and what surrounds them, is the store's matter.

The records were encoded when they changed; a snapshot is their join. The body is
`{"counter": …, "lineages": […], "tables": {name: {id: record}}}`.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from ds01d.core.state import State, wake_of_allocation, wake_of_container, wake_of_operation
from ds01d.core.table import Table
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container
from ds01d.model.gpu import Gpu, Slot
from ds01d.model.ids import AllocationId, ContainerId, GpuUuid, OperationId, SlotId
from ds01d.model.operation import Operation
from ds01d.model.policy import Policy

K = TypeVar("K", bound=str)
V = TypeVar("V")

_encode = msgspec.json.Encoder().encode


class _Tables(msgspec.Struct, frozen=True, kw_only=True):
    containers: dict[ContainerId, Container] = {}
    allocations: dict[AllocationId, Allocation] = {}
    operations: dict[OperationId, Operation] = {}
    gpus: dict[GpuUuid, Gpu] = {}
    slots: dict[SlotId, Slot] = {}


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    counter: int
    lineages: tuple[str, ...]
    tables: _Tables


_decode = msgspec.json.Decoder(_Body).decode


def dump(state: State) -> bytes:
    """Everything that is saved, as JSON."""
    tables = b",".join([b'"%b":{%b}' % (t.name.encode(), _rows(t.encoded)) for t in state.tables.values()])
    return b'{"counter":%d,"lineages":%b,"tables":{%b}}' % (state.counter, _encode(state.lineages), tables)


def _rows(encoded: Mapping[str, bytes]) -> bytes:
    return b",".join([b'"%b":%b' % (_quoted(key), record) for key, record in encoded.items()])


def _quoted(key: str) -> bytes:
    return _encode(key)[1:-1]


def load(
    body: bytes,
    *,
    lineage: str,
    written_by: str | None = None,
    boot_id: str = "",
    revision: int = 0,
    policy: Policy | None = None,
) -> State:
    """The state that was dumped, under this lineage; raises `msgspec.ValidationError` where it cannot be one.

    `written_by` is the lineage under which it was dumped: another one than now after a fall-back to an older file, and
    then remembered, because labels and permissions out there still carry it.
    """
    read = _decode(body)
    state = State(lineage=lineage, boot_id=boot_id, policy=policy)
    before = () if written_by is None or written_by == lineage else (written_by,)
    state.lineages = tuple(dict.fromkeys((*read.lineages, *before)))
    state.counter = read.counter
    state.revision = revision
    _fill(state.containers, read.tables.containers)
    _fill(state.allocations, read.tables.allocations)
    _fill(state.operations, read.tables.operations)
    _fill(state.gpus, read.tables.gpus)
    _fill(state.slots, read.tables.slots)
    for c in state.containers:
        state.changed_at[c.id] = revision
        _wake(state, wake_of_container(c), "containers", c.id)
    for a in state.allocations:
        _wake(state, wake_of_allocation(a), "allocations", a.id)
    for o in state.operations:
        _wake(state, wake_of_operation(o), "operations", o.id)
    return state


def _fill(table: Table[K, V], rows: Mapping[K, V]) -> None:
    for key, record in rows.items():
        table.store(key, record)
        table.encoded[key] = _encode(record)


def _wake(state: State, when: float | None, table: str, key: str) -> None:
    if when is not None:
        state.push_deadline(when, table, key)
