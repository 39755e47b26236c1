"""Run as `python -I -S paths_child.py`: becomes a user, opens a directory as him, says what it is. Stands alone.

Reads `name=value` pairs on stdin and writes such on stdout, with a NUL after each: no path has one, and to import json
would take as long as Python itself takes to start. It starts as root and drops to the user within this process, with
no program executed afterwards: so the kernel keeps it undumpable, and the user, whose process this then is, can kill it
but neither trace it nor answer in its place. Asked to compare, it stays root and opens nothing but a place in the tree.
"""
# Importing pathlib, contextlib or typing would take longer than all the rest of this program.
# ruff: noqa: PTH102, PTH115, PTH116

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: What an errno means to the one who wrote the path.
_WORDS = {
    errno.ENOENT: "there is no such directory",
    errno.EACCES: "you may not open it",
    errno.EPERM: "you may not open it",
    errno.ENOTDIR: "it is no directory",
    errno.ELOOP: "its symbolic links lead round in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EROFS: "its file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.ESTALE: "its file server has lost it",
    errno.EIO: "its file server does not answer",
    errno.EHOSTDOWN: "its file server does not answer",
    errno.ETIMEDOUT: "its file server does not answer",
    errno.ENOTCONN: "its file server does not answer",
}


#: openat2(2): its number on every architecture, and the flag for "no symbolic link anywhere on the way".
_OPENAT2, _RESOLVE_NO_SYMLINKS = 437, 0x04
#: Errors which mean that something else, or nothing, is there now.
_OTHER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def main() -> None:
    """Answer one question; there may be none, when the daemon ends before it has one."""
    asked = dict(pair.split("=", 1) for pair in sys.stdin.buffer.read().decode().split("\0") if pair)
    if not asked:
        return
    if "compare" in asked:
        _compare(asked["compare"])
    uid, gid = int(asked["uid"]), int(asked["gid"])
    if os.geteuid() == 0:
        # A directory server may hang in here; then this process does, and nobody else.
        os.initgroups(asked["name"], gid)
        os.setgid(gid)
        os.setuid(uid)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        _refuse("the daemon cannot act as this user")
    os.umask(0o077)
    path = asked["path"]
    try:
        if asked["create"] == "True":
            _make(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(fd)
        # The kernel's own name for what was opened, not a second walk along the path.
        resolved = os.readlink(f"/proc/self/fd/{fd}")
        again = os.stat(resolved, follow_symlinks=False)
        if (again.st_dev, again.st_ino) != (found.st_dev, found.st_ino):
            _refuse("it was moved or removed while it was being looked at")
        resolved.encode()
    except UnicodeEncodeError:
        _refuse("its real name is not UTF-8")
    except OSError as error:
        number = error.errno or 0
        _refuse(_WORDS.get(number, os.strerror(number)), denied=number in (errno.EACCES, errno.EPERM))
    home = os.path.realpath(asked["home"])
    _answer(
        {
            "path": resolved,
            "device": found.st_dev,
            "inode": found.st_ino,
            "owner": found.st_uid,
            "at_home": resolved == home or resolved.startswith(home.rstrip("/") + "/"),
        }
    )


def _make(path: str) -> None:
    try:  # noqa: SIM105 - contextlib would have to be imported for it
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def _compare(path: str) -> "NoReturn":
    """Say what a stored path is now; device and inode 0 where it is no directory any more."""
    import ctypes  # noqa: PLC0415 - takes longer than all the rest, and is needed for this question only

    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_NO_SYMLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    at = ctypes.c_int(-1)
    fd = libc.syscall(
        ctypes.c_long(_OPENAT2), at, path.encode(), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if fd >= 0:
        found = os.fstat(fd)
        _answer({"path": path, "device": found.st_dev, "inode": found.st_ino})
    number = ctypes.get_errno()
    if number in _OTHER:
        _answer({"path": path})
    _refuse(os.strerror(number))


def _answer(value: dict[str, object]) -> "NoReturn":
    sys.stdout.buffer.write("".join(f"{name}={word}\0" for name, word in value.items()).encode())
    sys.stdout.flush()
    # Not sys.exit: whoever asked waits for our end, and Python takes 4 of our 14 ms to clean up.
    os._exit(0)


def _refuse(words: str, *, denied: bool = False) -> "NoReturn":
    _answer({"refused": words, "denied": denied})


if __name__ == "__main__":
    main()
