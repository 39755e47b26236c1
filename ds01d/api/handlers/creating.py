"""`container.create`: words about an image, directories and GPUs become the specification of one container."""

import asyncio
import secrets
from pathlib import PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta

from ds01d.api import images, people, waiting
from ds01d.api.desk import Caller, Desk
from ds01d.api.handlers.container import Outcome, patience, shown
from ds01d.api.params import Changing, DirectoryPath, Size, Word, size_bytes
from ds01d.api.ports import Kind
from ds01d.core.events import CreateRequested
from ds01d.core.views import operations
from ds01d.loop.port import Preview
from ds01d.model.actor import Owner
from ds01d.model.container import ContainerLimits, ContainerSpec, Mount
from ds01d.model.errors import Denied, Invalid
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import Key
from ds01d.model.operation import Failure, Verb
from ds01d.model.policy import ContainersPolicy, Policy
from ds01d.model.slices import user_slice

#: Bytes of the key that names a container's permission; it is a bearer token.
_KEY_BYTES = 16
_DEFAULT_WORKSPACE = "~/workspace"


class CreateParams(Changing, frozen=True, kw_only=True):
    """What to make a container from."""

    name: Word
    image: Annotated[Word | None, Meta(description="left out: one's own NAME-image, else the default image")] = None
    gpus: Annotated[int, Meta(ge=0, le=64, description="how many slots; 0: none")] = 1
    gpu_type: Annotated[Word, Meta(description="any, full, mig, or a profile such as 2g.20gb")] = "any"
    gpu_memory: Annotated[Size | None, Meta(description="at least so much memory for each slot, such as 20g")] = None
    cpu_only: Annotated[bool, Meta(description="the same as no GPUs")] = False
    workspace: Annotated[DirectoryPath | None, Meta(description="~/workspace where it is left out")] = None
    data: DirectoryPath | None = None
    models: DirectoryPath | None = None
    network_host: Annotated[bool, Meta(description="for operators only")] = False
    interface: Literal["atomic", "orchestration"] = "atomic"


async def create(desk: Desk, caller: Caller, wish: CreateParams) -> Outcome:
    """Make a stopped container, and promise it the slots it asks for."""
    if wish.network_host and not caller.actor.operator:
        raise Denied("cannot give the host's network: only operators may", hint="leave the network out")
    owner = await people.owner(desk, caller, wish.user)
    # Together: the engine and the child that looks at the directories need not wait for each other.
    image, mounts = await asyncio.gather(_image(desk, owner, wish), _mounts(desk, owner, wish))
    answer = await desk.mind.ask(
        CreateRequested(
            actor=caller.actor,
            owner=owner,
            name=wish.name,
            spec=_spec(desk.mind.state.policy, owner, wish, image, mounts),
            key=Key(secrets.token_hex(_KEY_BYTES)),
            request_id=wish.request_id,
            dry_run=wish.dry_run,
        )
    )
    if isinstance(answer, Preview):
        return Outcome(verb=Verb.CREATE, name=wish.name, user=owner.name, would=answer.lines)
    assert answer is not None
    operation = await waiting.for_success(desk, caller, answer, patience(wish))
    return Outcome(
        verb=Verb.CREATE,
        name=wish.name,
        user=owner.name,
        container=shown(desk, operation.container),
        operation=operations.view(operation),
    )


def _spec(policy: Policy, owner: Owner, wish: CreateParams, image: str, mounts: tuple[Mount, ...]) -> ContainerSpec:
    limits = policy.limits(owner.uid)
    return ContainerSpec(
        image=image,
        gpus=_gpus(wish),
        mounts=mounts,
        limits=ContainerLimits(
            cpus=limits.max_cpus,
            memory=limits.memory,
            memory_swap=limits.memory_swap,
            shm_size=limits.shm_size,
            pids=limits.pids_limit,
        ),
        cgroup_parent=user_slice(policy.group(owner.uid), owner.name),
        network_host=wish.network_host,
        interface=wish.interface,
    )


def _gpus(wish: CreateParams) -> GpuRequest | None:
    if wish.cpu_only or not wish.gpus:
        return None
    memory_mib = -(-size_bytes(wish.gpu_memory) // 2**20) if wish.gpu_memory is not None else 0
    return GpuRequest(count=wish.gpus, kind=wish.gpu_type, memory_mib=memory_mib)


async def _image(desk: Desk, owner: Owner, wish: CreateParams) -> str:
    there = await waiting.images(desk, owner.uid)
    default = desk.mind.state.policy.containers.default_image
    return images.resolve(wish.image, wish.name, there, owner.uid, default)


async def _mounts(desk: Desk, owner: Owner, wish: CreateParams) -> tuple[Mount, ...]:
    asked: tuple[tuple[Kind, str | None], ...] = (
        ("workspace", wish.workspace or _DEFAULT_WORKSPACE),
        ("data", wish.data),
        ("models", wish.models),
    )
    mounts = []
    for kind, path in asked:
        if path is None:
            continue
        # Only the default workspace is made where it is missing: a path somebody wrote is more likely a slip.
        create = kind == "workspace" and wish.workspace is None and not wish.dry_run
        found = await desk.paths.resolve(owner, path, kind, create=create)
        if isinstance(found, Failure):
            raise people.refusal(found)
        _under_roots(desk.mind.state.policy.containers, kind, path, found)
        mounts.append(found)
    return tuple(mounts)


def _under_roots(policy: ContainersPolicy, kind: Kind, path: str, found: Mount) -> None:
    roots = {"data": policy.data_roots, "models": policy.models_roots}.get(kind, ())
    if roots and not any(PurePosixPath(found.source).is_relative_to(root) for root in roots):
        raise Invalid(
            f"cannot give {path} as {kind}: it does not lie under {' or '.join(roots)}",
            hint="only these directories may be used for it on this machine",
        )
