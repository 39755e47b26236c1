"""The C library's look-ups of users and groups, called without Python's own `pwd`, `grp` and `os.getgrouplist`.

Those raise KeyError both for a name that does not exist and for a directory server that is down. And `pwd.getpwall`
and `os.getgrouplist` keep the interpreter's lock while they wait (CPython 3.11): a server that hangs would stop every
thread of the daemon. All of it blocks, and may block for ever; any number of threads may ask at once.
"""

import ctypes
import errno
import os

import msgspec

from ds01d.model.account import Account
from ds01d.model.ids import Uid

#: getpwnam(3): these mean that there is no such entry; any other, that nobody could be asked.
_NO_SUCH = (0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM)
_BUFFER, _BUFFER_MAX = 1 << 12, 1 << 24
_GROUPS, _GROUPS_MAX = 1 << 8, 1 << 16


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
        found = []
        self._libc.setpwent()  # the list's place is the process's: only one thread may list at a time
        try:
            while True:
                entry = _Passwd()
                buffer = self._call("getpwent_r", (), entry)
                found.append(_account(entry))
                del buffer
        except LookupError:
            return tuple(found)
        finally:
            self._libc.endpwent()

    def group_by_name(self, name: str) -> UnixGroup:
        """A group and its list of members."""
        entry = _Group()
        buffer = self._call("getgrnam_r", (_word(name),), entry)
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
        for gid in self._gids(account):
            entry = _Group()
            try:
                buffer = self._call("getgrgid_r", (ctypes.c_uint32(gid),), entry)
            except LookupError:
                continue
            names.append(_text(entry.name))
            del buffer
        return tuple(names)

    def _gids(self, account: Account) -> tuple[int, ...]:
        room = _GROUPS
        while True:
            count, gids = ctypes.c_int(room), (ctypes.c_uint32 * room)()
            primary = ctypes.c_uint32(account.gid)
            if self._libc.getgrouplist(_word(account.name), primary, gids, ctypes.byref(count)) >= 0:
                return tuple(gids[: count.value])
            if room >= _GROUPS_MAX:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            room *= 4

    def _user(self, function: str, key: ctypes.c_uint32 | bytes) -> Account:
        entry = _Passwd()
        buffer = self._call(function, (key,), entry)
        found = _account(entry)
        del buffer
        return found

    def _call(
        self, function: str, key: tuple[ctypes.c_uint32 | bytes, ...], entry: _Passwd | _Group
    ) -> "ctypes.Array[ctypes.c_char]":
        """Fill the entry. Its texts lie in the buffer that is given back, which has to outlive their reading."""
        length = _BUFFER
        while True:
            buffer = ctypes.create_string_buffer(length)
            found = ctypes.c_void_p()
            code = self._libc[function](*key, ctypes.byref(entry), buffer, ctypes.c_size_t(length), ctypes.byref(found))
            if code == errno.ERANGE and length < _BUFFER_MAX:
                length *= 4
            elif found.value:
                return buffer
            elif code in _NO_SUCH:
                raise LookupError(f"{function}: no such entry")
            else:
                raise OSError(code, os.strerror(code))


def _account(entry: _Passwd) -> Account:
    return Account(uid=Uid(entry.uid), gid=entry.gid, name=_text(entry.name), home=_text(entry.home))


def _word(name: str) -> bytes:
    if "\0" in name:
        raise LookupError("no name has a NUL")
    return name.encode(errors="surrogateescape")


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="backslashreplace")
