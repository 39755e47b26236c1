"""From names to uids: a checked document becomes the policy in force. Reads no file; NSS is asked through `Directory`.

What NSS does not know stops nobody else: a listed name without an account is a remark. What NSS does not *answer* is
named, so that the caller asks again; until then such a user is in no group of his own, and the door, which cannot learn
who he is either, refuses him.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from ds01d.adapters.config_policy import Given, Group, Member, PolicyDocument
from ds01d.adapters.config_yaml import DIGITS_MAX
from ds01d.model.account import Account, Missing
from ds01d.model.complaint import Complaint
from ds01d.model.ids import Uid
from ds01d.model.policy import Limits, Policy

#: What groups of these names have where nothing is set; the rest as everybody.
_BY_NAME: Mapping[str, Mapping[str, float]] = {
    "student": {"priority": 10},
    "researcher": {"priority": 50, "gpu_hold_after_stop": 2 * 3600.0},
    "admin": {"priority": 90, "gpu_hold_after_stop": 3 * 3600.0},
}
#: What an override gives unasked: whoever got one was let past the others by a person.
_PRIORITY_OF_OVERRIDES = 100


class Directory(Protocol):
    """Accounts and Unix groups; may block."""

    def find_name(self, name: str) -> Account | Missing:
        """The account of a name."""
        ...

    def find_members(self, group: str) -> frozenset[Uid] | Missing:
        """Who is in a Unix group, by its list or by his primary group."""
        ...


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and what came up on the way."""

    policy: Policy
    #: Names without an account, Unix groups that do not exist: worth telling an operator, no reason to refuse the file.
    remarks: tuple[Complaint, ...] = ()
    #: What NSS did not answer: resolve again soon.
    unanswered: tuple[str, ...] = ()


def resolve(document: PolicyDocument, directory: Directory) -> Resolved:
    """Settle for each user which group and which limits are his."""
    search = _Search(directory)
    inline: dict[Uid, dict[str, Member]] = {}
    through: dict[Uid, dict[str, Member]] = {}
    for name, group in document.groups.items():
        for member in group.members:
            table = through if member.text.startswith("@") else inline
            for uid in search.uids(member):
                table.setdefault(uid, {}).setdefault(name, member)
    group_of: dict[Uid, str] = {}
    ambiguous: dict[Uid, str] = {}
    for uid in (*inline, *(uid for uid in through if uid not in inline)):
        found = inline.get(uid) or through[uid]
        if len(found) == 1:
            group_of[uid] = next(iter(found))
        else:
            ambiguous[uid] = _between(found)
    groups = {
        name: limits_of_group(document, name)
        for name in (*document.groups, *({document.default_group} - document.groups.keys()))
    }
    users: dict[Uid, Limits] = {}
    for name, override in document.overrides.items():
        for uid in search.uids(Member(text=name, file=override.file, line=override.line)):
            if uid in users:
                ambiguous[uid] = f"`user_overrides` has more than one entry for uid {uid}"
            base = groups[group_of.get(uid, document.default_group)]
            users[uid] = _over(base, {"priority": _PRIORITY_OF_OVERRIDES}, _values(override.fields))
    policy = Policy(
        groups=groups,
        users=users,
        group_of=group_of,
        ambiguous=ambiguous,
        default_group=document.default_group,
        gpu_allocation=document.gpu_allocation,
        containers=document.containers,
        sigterm_grace=document.sigterm_grace,
    )
    return Resolved(policy=policy, remarks=tuple(search.remarks), unanswered=tuple(search.unanswered))


def limits_of_group(document: PolicyDocument, name: str) -> Limits:
    """A group's limits field by field: its own, then the defaults, then what is built in."""
    group = document.groups.get(name, Group())
    return _over(Limits(), _BY_NAME.get(name, {}), _values(document.defaults), _values(group.fields))


def swap_complaints(document: PolicyDocument) -> Iterable[Complaint]:
    """The engine refuses swap without a memory limit, or with less than that: better said here than at every create."""
    places: list[tuple[str, dict[str, Given], Limits]] = [
        (f"groups.{name}", {**document.defaults, **group.fields}, limits_of_group(document, name))
        for name, group in document.groups.items()
    ]
    if document.default_group not in document.groups:
        places.append(("defaults", document.defaults, limits_of_group(document, document.default_group)))
    for name, override in document.overrides.items():
        groups = (g for g, group in document.groups.items() if any(m.text == name for m in group.members))
        base = limits_of_group(document, next(groups, document.default_group))
        places.append((f"user_overrides.{name}", override.fields, _over(base, _values(override.fields))))
    for path, fields, limits in places:
        cause = fields.get("memory_swap") or fields.get("memory")
        if cause is None or limits.memory_swap is None:
            continue
        if limits.memory is None or limits.memory_swap < limits.memory:
            message = "is memory and swap together, so it has to be at least `memory`, which has to be set too"
            yield Complaint(file=cause.file, line=cause.line, key=f"{path}.memory_swap", message=message)


def _over(base: Limits, *layers: Mapping[str, object]) -> Limits:
    for layer in layers:
        base = msgspec.structs.replace(base, **layer)
    return base


def _values(fields: Mapping[str, Given]) -> dict[str, object]:
    return {name: given.value for name, given in fields.items()}


def _between(found: Mapping[str, Member]) -> str:
    places = " and ".join(
        f"`{group}` (as {member.text}, {member.file}:{member.line})" for group, member in found.items()
    )
    return f"the policy has you in more than one group, {places}"


class _Search:
    """Names and Unix groups to uids, with notes about what was not found."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.remarks: list[Complaint] = []
        self.unanswered: list[str] = []

    def uids(self, member: Member) -> frozenset[Uid]:
        word = member.text
        if word.startswith("@"):
            uids = self._directory.find_members(word[1:])
            if not isinstance(uids, Missing):
                return uids
            return self._nobody(uids, member, f"there is no Unix group `{word[1:]}` on this machine")
        # A name first: in some directories names are numbers.
        account = self._directory.find_name(word)
        if isinstance(account, Account):
            return frozenset({account.uid})
        if account is Missing.NO_SUCH and word.isascii() and word.isdigit() and len(word) <= DIGITS_MAX:
            return frozenset({Uid(int(word))})
        return self._nobody(account, member, f"there is no account `{word}` on this machine")

    def _nobody(self, missing: Missing, member: Member, message: str) -> frozenset[Uid]:
        if missing is Missing.SILENT:
            self.unanswered.append(member.text)
        else:
            self.remarks.append(Complaint(file=member.file, line=member.line, key="", message=message))
        return frozenset()
