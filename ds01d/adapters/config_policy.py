"""resource-limits.yaml and the members files as a checked document, names still names. Who they are: config_resolve.py.

Everything wrong is found in one reading. A key that product versions to come will read is refused too: a limit that
somebody wrote down and nobody enforces is worse than an error.
"""

import difflib
import re
from collections.abc import Mapping

import msgspec
import yaml

from ds01d.adapters.config_yaml import (
    Reader,
    Sheet,
    Wrong,
    boolean,
    duration,
    join,
    number,
    or_null,
    size,
    text,
    texts,
    whole,
)
from ds01d.model.complaint import Complaint
from ds01d.model.gpu import PROFILE
from ds01d.model.policy import ContainersPolicy, GpuPolicy, Strategy

#: Docker refuses a container with less.
_MEMORY_MIN = 6 << 20
_COUNT, _SIZE = or_null(whole(0)), or_null(size())

#: Every field of `Limits`, with what may stand there; null where it means no limit or never.
FIELDS: Mapping[str, Reader[object]] = {
    "max_mig_instances": _COUNT,
    "max_gpu_equivalents": or_null(number()),
    "max_gpus_per_container": _COUNT,
    "allow_full_gpu": boolean,
    "max_containers_per_user": _COUNT,
    # 0 is no limit to the engine, and nothing at all to a reader: it has to be null.
    "max_cpus": or_null(number(more_than=0)),
    "memory": or_null(size(_MEMORY_MIN)),
    "memory_swap": or_null(size(_MEMORY_MIN)),
    "shm_size": _SIZE,
    "pids_limit": or_null(whole(1)),
    "gpu_hold_after_stop": or_null(duration("h")),
    "created_timeout": or_null(duration("m")),
    "priority": whole(1, 100),
}
_ALIASES = {"max_gpus": "max_mig_instances"}
_SECTIONS = ("defaults", "groups", "user_overrides", "gpu_allocation", "containers", "policies", "default_group")
#: Keys that the product knows and this version does not act on.
_LATER = frozenset(
    (
        "idle_timeout",
        "container_hold_after_stop",
        "gpu_unused_timeout",
        "max_runtime",
        "max_tasks",
        "cpu_quota",
        "memory_max",
        "memory_high",
        "gpu_hours",
        "allow_sudo",
        "max_builds",
        "aggregate",
        "expires",
        "reservation_start",
        "reservation_end",
        "reserved_gpus",
        "reserved_count",
        "mig_layout",
        "release_without_cdi",
        "queue_aging",
        "queue_backfill_limit",
        "fairshare_half_life",
        "preempt",
        "reservation_no_show",
        "sample_interval",
        "idle_detection_window",
        "gpu_idle_threshold",
        "cpu_idle_threshold",
        "disk_idle_threshold",
        "network_idle_threshold",
        "idle_without_gpu_signal",
        "grace_period",
        "keepalive_max",
        "extend_max",
        "high_demand_threshold",
        "high_demand_idle_reduction",
        "quota_notice_cooldown",
        "container_types",
        "foreign_gpu_use",
        "interop",
        "bare_metal",
        "monitoring",
        "notify",
        "metrics",
        "catalogue",
    )
)
#: It becomes part of a file's and of a slice's name.
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """One value and where it stands."""

    value: object
    file: str
    line: int


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a members list: a name, a uid, or `@unixgroup`."""

    text: str
    file: str
    line: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group as written."""

    fields: dict[str, Given] = {}
    members: tuple[Member, ...] = ()


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """One user's exceptions as written, and where they begin."""

    fields: dict[str, Given]
    file: str
    line: int
    reason: str | None = None
    approved_by: str | None = None


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole policy as written and checked; nothing of it is underneath anything else yet."""

    defaults: dict[str, Given] = {}
    groups: dict[str, Group] = {}
    overrides: dict[str, Override] = {}
    default_group: str = "student"
    gpu_allocation: GpuPolicy = GpuPolicy()
    containers: ContainersPolicy = ContainersPolicy()
    sigterm_grace: float = 60.0


def read_policy(
    file: str, raw: bytes, members: Mapping[str, tuple[str, bytes]]
) -> tuple[PolicyDocument, list[Complaint]]:
    """Read it all; `members` is group → (file, content). With complaints the document is not to be used."""
    sheet = Sheet(file)
    root = sheet.section(sheet.open(raw), "")
    refuse_others(sheet, root, "", _SECTIONS)
    groups = {name: _group(sheet, name, node) for name, node in sheet.section(root.get("groups"), "groups").items()}
    for name, (members_file, content) in members.items():
        listed = Sheet(members_file)
        found = _members_file(listed, content)
        if name in groups:
            groups[name] = msgspec.structs.replace(groups[name], members=groups[name].members + found)
        else:
            listed.complain(None, "", f"there is no group `{name}` in {file}{_near(name, groups)}")
        sheet.complaints += listed.complaints
    sheet.complaints += _double_members(groups)
    overrides = {
        name: _override(sheet, name, node)
        for name, node in sheet.section(root.get("user_overrides"), "user_overrides").items()
    }
    document = PolicyDocument(
        defaults=_fields(sheet, sheet.section(root.get("defaults"), "defaults"), "defaults", ()),
        groups=groups,
        overrides=overrides,
        default_group=_default_group(sheet, root.get("default_group"), groups),
        gpu_allocation=_gpu_allocation(sheet, root.get("gpu_allocation")),
        containers=_containers(sheet, root.get("containers")),
        sigterm_grace=_sigterm_grace(sheet, root.get("policies")),
    )
    return document, sheet.complaints


def _group(sheet: Sheet, name: str, node: yaml.Node) -> Group:
    path = join("groups", name)
    if not _GROUP.fullmatch(name):
        sheet.complain(node, path, "a group's name has letters, digits, `_`, `.` and `-`, at most 64")
    found = sheet.section(node, path)
    members: list[Member] = []
    inline = found.get("members")
    if isinstance(inline, yaml.SequenceNode):
        for item in inline.value:
            word = sheet.read(item, join(path, "members"), text, "")
            if word:
                members.append(Member(text=word, file=sheet.file, line=item.start_mark.line + 1))
    elif inline is not None:
        sheet.read(inline, join(path, "members"), or_null(texts), None)
    for member in members:
        _check_member(sheet.complaints, member, join(path, "members"))
    return Group(fields=_fields(sheet, found, path, ("members",)), members=tuple(members))


def _override(sheet: Sheet, name: str, node: yaml.Node) -> Override:
    path = join("user_overrides", name)
    found = sheet.section(node, path)
    if not found:
        sheet.complain(node, path, "overrides nothing; name a field, or take the entry out")
    if name.startswith("@"):
        sheet.complain(node, path, "an override is for one user; limits of many belong into a group")
    words: dict[str, str | None] = {
        key: sheet.read(found[key], join(path, key), or_null(text), None)
        for key in ("reason", "approved_by")
        if key in found
    }
    return Override(
        fields=_fields(sheet, found, path, ("reason", "approved_by")),
        file=sheet.file,
        line=node.start_mark.line + 1,
        reason=words.get("reason"),
        approved_by=words.get("approved_by"),
    )


def _fields(sheet: Sheet, found: Mapping[str, yaml.Node], path: str, beside: tuple[str, ...]) -> dict[str, Given]:
    """The limits among these keys; `beside` are keys that somebody else reads."""
    refuse_others(sheet, found, path, (*FIELDS, *_ALIASES, *beside))
    fields: dict[str, Given] = {}
    for key, node in found.items():
        name = _ALIASES.get(key, key)
        if name not in FIELDS:
            continue
        if name in fields:
            sheet.complain(node, join(path, key), f"`{name}` and its alias stand here both: keep one of them")
        value = sheet.read(node, join(path, key), FIELDS[name], None)
        fields[name] = Given(value=value, file=sheet.file, line=node.start_mark.line + 1)
    return fields


def _gpu_allocation(sheet: Sheet, node: yaml.Node | None) -> GpuPolicy:
    path, built_in = "gpu_allocation", GpuPolicy()
    found = sheet.section(node, path)
    refuse_others(sheet, found, path, ("strategy", "enable_mig", "mig_profile"))
    policy = built_in
    if "strategy" in found:
        strategy = sheet.read(found["strategy"], join(path, "strategy"), _strategy, built_in.strategy)
        policy = msgspec.structs.replace(policy, strategy=strategy)
    if "enable_mig" in found:
        enable = sheet.read(found["enable_mig"], join(path, "enable_mig"), boolean, built_in.enable_mig)
        policy = msgspec.structs.replace(policy, enable_mig=enable)
    if "mig_profile" in found:
        profile = sheet.read(found["mig_profile"], join(path, "mig_profile"), _profile, built_in.mig_profile)
        policy = msgspec.structs.replace(policy, mig_profile=profile)
    return policy


def _containers(sheet: Sheet, node: yaml.Node | None) -> ContainersPolicy:
    path, policy = "containers", ContainersPolicy()
    found = sheet.section(node, path)
    refuse_others(sheet, found, path, ("restart_after_boot", "default_image", "data_roots", "models_roots"))
    if "restart_after_boot" in found:
        restart = sheet.read(found["restart_after_boot"], join(path, "restart_after_boot"), boolean, True)  # noqa: FBT003  # what stands there when it is wrong
        policy = msgspec.structs.replace(policy, restart_after_boot=restart)
    if "default_image" in found:
        image = sheet.read(found["default_image"], join(path, "default_image"), or_null(text), None)
        policy = msgspec.structs.replace(policy, default_image=image)
    if "data_roots" in found:
        roots = sheet.read(found["data_roots"], join(path, "data_roots"), _roots, policy.data_roots)
        policy = msgspec.structs.replace(policy, data_roots=roots)
    if "models_roots" in found:
        roots = sheet.read(found["models_roots"], join(path, "models_roots"), _roots, policy.models_roots)
        policy = msgspec.structs.replace(policy, models_roots=roots)
    return policy


def _sigterm_grace(sheet: Sheet, node: yaml.Node | None) -> float:
    path, built_in = "policies", PolicyDocument().sigterm_grace
    found = sheet.section(node, path)
    refuse_others(sheet, found, path, ("sigterm_grace",))
    if "sigterm_grace" not in found:
        return built_in
    return sheet.read(found["sigterm_grace"], join(path, "sigterm_grace"), duration("s"), built_in)


def _default_group(sheet: Sheet, node: yaml.Node | None, groups: Mapping[str, Group]) -> str:
    built_in = PolicyDocument().default_group
    if node is None:
        return built_in
    name = sheet.read(node, "default_group", text, built_in)
    if name not in groups:
        sheet.complain(node, "default_group", f"there is no group `{name}`{_near(name, groups)}")
    return name


def _strategy(node: yaml.Node) -> Strategy:
    word = text(node)
    if word not in tuple(Strategy):
        raise Wrong(f"expected {' or '.join(Strategy)}, got `{word}`")
    return Strategy(word)


def _profile(node: yaml.Node) -> str:
    word = text(node)
    if not PROFILE.match(word):
        raise Wrong(f"expected a MIG profile such as 2g.20gb, got `{word}`")
    return word


def _roots(node: yaml.Node) -> tuple[str, ...]:
    roots = texts(node)
    for root in roots:
        if not root.startswith("/") or ".." in root.split("/"):
            raise Wrong(f"expected absolute directories, got `{root}`")
    return roots


def _members_file(sheet: Sheet, raw: bytes) -> tuple[Member, ...]:
    """One entry a line; `#` begins a comment."""
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as error:
        at = raw.count(b"\n", 0, error.start) + 1
        sheet.complaints.append(Complaint(file=sheet.file, line=at, key="", message="this is not UTF-8"))
        return ()
    found = []
    for at, line in enumerate(lines, start=1):
        word = line.split("#", 1)[0].strip()
        if word:
            member = Member(text=word, file=sheet.file, line=at)
            _check_member(sheet.complaints, member, "")
            found.append(member)
    return tuple(found)


def _check_member(complaints: list[Complaint], member: Member, key: str) -> None:
    word = member.text
    if re.search(r"[\s:,/]", word) or word == "@":
        message = f"expected one user name, uid or @unixgroup, got `{word}`"
        complaints.append(Complaint(file=member.file, line=member.line, key=key, message=message))


def _double_members(groups: Mapping[str, Group]) -> list[Complaint]:
    """Nobody stands twice in one group, and no user in two; a Unix group in two of ours is judged user by user."""
    complaints = []
    seen: dict[str, tuple[str, Member]] = {}
    for name, group in groups.items():
        for member in group.members:
            place = member.text if not member.text.startswith("@") else f"{name}/{member.text}"
            first = seen.setdefault(place, (name, member))
            if first[1] is member:
                continue
            where = f"{first[1].file}:{first[1].line}"
            message = (
                f"`{member.text}` stands here twice: {where} has it too"
                if first[0] == name
                else f"`{member.text}` is in two groups, `{first[0]}` ({where}) and `{name}`: keep one of them"
            )
            complaints.append(
                Complaint(
                    file=member.file, line=member.line, key=join(join("groups", name), "members"), message=message
                )
            )
    return complaints


def refuse_others(sheet: Sheet, found: Mapping[str, yaml.Node], path: str, known: tuple[str, ...]) -> None:
    """Complain about every key that nobody reads."""
    for key, node in found.items():
        if key in known:
            continue
        if key in _LATER:
            sheet.complain(
                node, join(path, key), "is not read by this version, so it would not be enforced: take it out"
            )
        else:
            sheet.complain(node, join(path, key), f"there is no such key{_near(key, known)}")


def _near(word: str, known: "Mapping[str, object] | tuple[str, ...]") -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; `{near[0]}` was meant?" if near else f"; there are {', '.join(known)}" if known else ""
