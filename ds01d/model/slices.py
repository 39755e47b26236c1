"""Names of cgroup slices, `ds01-<group>-<user>.slice`: two people never share one, whatever they are called."""

import hashlib
import string

#: What stands for itself, as `systemd-escape` has it; `-` does not, because systemd reads it as a step down the tree.
_PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")
#: systemd refuses longer unit names (UNIT_NAME_MAX).
_UNIT_NAME_MAX = 255
_GROUP_MAX = 120
_HASH_DIGITS = 16
#: Before the hash of a name that was cut: an escaped NUL, which no name of a user or group can hold.
_CUT = "\\x00"


def escape(name: str) -> str:
    """One part of a unit name, escaped byte by byte; never contains `-`."""
    head, rest = name[:1], name[1:]
    first = head if head in _PLAIN and head != "." else _bytes(head)
    return first + "".join([c if c in _PLAIN else _bytes(c) for c in rest])


def user_slice(group: str, user: str) -> str:
    """The cgroup slice of one user; its parent is `group_slice(group)`."""
    part = _group_part(group)
    room = _UNIT_NAME_MAX - len(f"ds01-{part}-.slice")
    return f"ds01-{part}-{_cut(escape(user), user, room)}.slice"


def group_slice(group: str) -> str:
    """The cgroup slice of a group."""
    return f"ds01-{_group_part(group)}.slice"


def _group_part(group: str) -> str:
    return _cut(escape(group), group, _GROUP_MAX)


def _cut(escaped: str, name: str, room: int) -> str:
    if len(escaped) <= room:
        return escaped
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return escaped[: room - len(_CUT) - _HASH_DIGITS] + _CUT + digest


def _bytes(c: str) -> str:
    return "".join([f"\\x{b:02x}" for b in c.encode()])
