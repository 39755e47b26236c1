"""What users may have: the policy of resource-limits.yaml as values, after it was read, checked and resolved."""

from enum import StrEnum

import msgspec

from ds01d.model.ids import Uid


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may have. None: no limit (counts, sizes) or never (times). Times in seconds, sizes in bytes."""

    max_mig_instances: int | None = 1
    max_gpu_equivalents: float | None = None
    max_gpus_per_container: int | None = 1
    allow_full_gpu: bool = True
    max_containers_per_user: int | None = 3
    max_cpus: float | None = None
    memory: int | None = None
    memory_swap: int | None = None
    shm_size: int | None = None
    pids_limit: int | None = None
    gpu_hold_after_stop: float | None = 3600.0
    created_timeout: float | None = 1800.0
    priority: int = 10


class Strategy(StrEnum):
    """How slots are chosen."""

    LEAST_ALLOCATED = "least_allocated"
    PACK = "pack"


class GpuPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The section `gpu_allocation`."""

    strategy: Strategy = Strategy.LEAST_ALLOCATED
    enable_mig: bool = True
    #: What a request for kind `mig` means.
    mig_profile: str = "2g.20gb"


class ContainersPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The section `containers`."""

    restart_after_boot: bool = True
    default_image: str | None = None
    data_roots: tuple[str, ...] = ()
    models_roots: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The whole policy in force."""

    #: Limits per group, `defaults` already underneath.
    groups: dict[str, Limits] = {}
    #: Limits per user who has overrides, group and defaults already underneath.
    users: dict[Uid, Limits] = {}
    #: The group of each user who is a member of one.
    group_of: dict[Uid, str] = {}
    #: Users who stand in two Unix groups that are members of two of ours: refused, with the reason.
    ambiguous: dict[Uid, str] = {}
    default_group: str = "student"
    gpu_allocation: GpuPolicy = GpuPolicy()
    containers: ContainersPolicy = ContainersPolicy()
    #: SIGTERM to SIGKILL of a stop, seconds.
    sigterm_grace: float = 60.0
    #: What NSS did not answer when the members were looked up: who is in no group then may be in one after all.
    unanswered: tuple[str, ...] = ()
    #: Said in `status` where the file in force is not the one on disk.
    complaint: str | None = None

    def group(self, uid: Uid) -> str:
        """The group of a user; those in none are in the default one."""
        return self.group_of.get(uid, self.default_group)

    def limits(self, uid: Uid) -> Limits:
        """What a user may have, field by field: override, group, defaults, built in."""
        own = self.users.get(uid)
        if own is not None:
            return own
        return self.groups.get(self.group(uid), Limits())
