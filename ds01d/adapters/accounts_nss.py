"""The C library's look-ups of users and groups, with the difference that Python's own drop: *no such* and *no answer*.

`pwd.getpwnam` raises KeyError both for a name that does not exist and for a directory server that is down. The
functions behind it tell the two apart, so they are called here. All of it blocks, and may block for ever.
"""

import ctypes
import errno
import grp
import os
import pwd

import msgspec

from ds01d.model.account import Account
from ds01d.model.ids import Uid

#: getpwnam(3): these mean that there is no such entry; any other, that nobody could be asked.
_NO_SUCH = (0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM)
_BUFFER, _BUFFER_MAX = 1 << 12, 1 << 24


class _Passwd(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


class _Group(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("gid", ctypes.c_uint32),
        ("members", ctypes.POINTER(ctypes.c_char_p)),
    )


class UnixGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One Unix group as NSS has it; `members` leaves out those whose primary group it is."""

    name: str
    gid: int
    members: tuple[str, ...]


class System:
    """This machine's NSS. LookupError: no such; OSError: no answer."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def user_by_uid(self, uid: Uid) -> Account:
        """The account of a uid."""
        return self._user("getpwuid_r", ctypes.c_uint32(uid))

    def user_by_name(self, name: str) -> Account:
        """The account of a name."""
        return self._user("getpwnam_r", _word(name))

    def users(self) -> tuple[Account, ...]:
        """Every account that the directory lets itself be asked for; a large one may list none of its own."""
        return tuple(
            Account(uid=Uid(entry.pw_uid), gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)
            for entry in pwd.getpwall()
        )

    def group_by_name(self, name: str) -> UnixGroup:
        """A group and its list of members."""
        entry = _Group()
        buffer = self._call("getgrnam_r", _word(name), entry)
        members = []
        if entry.members:
            for member in entry.members:
                if member is None:
                    break
                members.append(_text(member))
        found = UnixGroup(name=_text(entry.name), gid=entry.gid, members=tuple(members))
        del buffer
        return found

    def groups_of(self, account: Account) -> tuple[str, ...]:
        """Names of an account's groups; one whose gid has no name is left out."""
        # getgrouplist says nothing of a server that is down, it gives fewer groups; so the account is asked for first.
        self.user_by_name(account.name)
        names = []
        for gid in os.getgrouplist(account.name, account.gid):
            try:
                names.append(grp.getgrgid(gid).gr_name)
            except KeyError:
                continue
        return tuple(names)

    def _user(self, function: str, key: ctypes.c_uint32 | bytes) -> Account:
        entry = _Passwd()
        buffer = self._call(function, key, entry)
        found = Account(uid=Uid(entry.uid), gid=entry.gid, name=_text(entry.name), home=_text(entry.home))
        del buffer
        return found

    def _call(
        self, function: str, key: ctypes.c_uint32 | bytes, entry: _Passwd | _Group
    ) -> "ctypes.Array[ctypes.c_char]":
        """Fill the entry. Its texts lie in the buffer that is given back, which has to outlive their reading."""
        length = _BUFFER
        while True:
            buffer = ctypes.create_string_buffer(length)
            found = ctypes.c_void_p()
            code = self._libc[function](key, ctypes.byref(entry), buffer, ctypes.c_size_t(length), ctypes.byref(found))
            if code == errno.ERANGE and length < _BUFFER_MAX:
                length *= 4
            elif found.value:
                return buffer
            elif code in _NO_SUCH:
                raise LookupError(f"{function}: no such entry")
            else:
                raise OSError(code, os.strerror(code))


def _word(name: str) -> bytes:
    if "\0" in name:
        raise LookupError("no name has a NUL")
    return name.encode(errors="surrogateescape")


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="backslashreplace")
