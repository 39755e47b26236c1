"""Opens files of a box from outside, with every symlink resolved inside it."""

import ctypes
import os
from pathlib import Path

_SYS_OPENAT2 = 437  # the same on every architecture of Linux; Python has no name for it
_RESOLVE_IN_ROOT = 0x10  # linux/openat2.h

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: Path, path: str, flags: int, mode: int = 0) -> int:
    """Opens `path` as if `root` were /; returns a descriptor, raises OSError as `os.open` would."""
    base = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        how = _How(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT)
        fd = int(_libc.syscall(_SYS_OPENAT2, base, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
    finally:
        os.close(base)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd
