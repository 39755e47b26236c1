"""What other programs are told of a container, in a file of its own. Where it lies is the adapter's matter."""

from ds01d.core.state import State
from ds01d.core.views.slots import names_of, until
from ds01d.model.container import Phase
from ds01d.model.ids import ContainerId
from ds01d.model.metadata import ContainerMetadata


def metadata_of(state: State, container: ContainerId) -> ContainerMetadata | None:
    """The file's content for one container; None: it is gone, or none of ours to speak for."""
    c = state.containers.get(container)
    if c is None or c.stray:
        return None
    a = state.allocation_of(container)
    return ContainerMetadata(
        engine_name=c.engine_name,
        id=c.id,
        name=c.name,
        user=c.user,
        uid=c.uid,
        image=c.spec.image,
        phase=c.phase,
        allocation=a.id if a is not None else None,
        slots=names_of(state, a.slots) if a is not None else (),
        gpueq=a.gpueq if a is not None else 0.0,
        allocated_at=a.since if a is not None else None,
        stopped_at=c.finished_at if c.phase is Phase.STOPPED and c.finished_at else None,
        deadline=until(a),
    )
