"""The two files that let a container start, in the order that a guard at any moment can rely on. It decides nothing.

Giving writes the grant and then the spec, taking removes the grant and then the spec: with the grant gone no start gets
through, whatever spec the engine still has at hand. All calls block and belong into a worker thread; errors of the file
system are left to the caller.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ds01d.adapters.cdi_spec import (
    Content,
    Malformed,
    check_key,
    container_spec,
    driver_spec,
    encode,
    grant_text,
    read_container_spec,
    read_grant,
)
from ds01d.adapters.cdi_vendor import VendorFiles, nodes_of
from ds01d.adapters.files import contents
from ds01d.model.ids import Key
from ds01d.model.permission import Permission, PermissionSeen

#: Root's alone: a grant is what the guard believes.
FILE_MODE = 0o600
_PREFIX, _SUFFIX = "ds01-", ".json"
_DRIVER = "ds01-driver.json"


class Permissions:
    """The grants and specs of this machine.

    `dev` and `proc` are where the driver's nodes and its /proc directory lie, where the vendor's spec does not say.
    """

    def __init__(
        self,
        *,
        grant_dir: Path,
        cdi_dir: Path,
        guard: Path,
        vendor_dirs: Sequence[Path],
        dev: Path = Path("/dev"),
        proc: Path | None = None,
    ) -> None:
        self._grants = grant_dir
        self._specs = cdi_dir
        self._guard = str(guard)
        self._vendor = VendorFiles(vendor_dirs)
        self._dev = dev
        self._proc = Path(os.environ.get("DS01_PROC_NVIDIA", "/proc/driver/nvidia")) if proc is None else proc

    def permit(self, permission: Permission) -> None:
        """Give: the grant, then the spec. A file that says so already is left alone."""
        check_key(permission.key)
        grant = grant_text(permission)
        # Everything that can fail for want of a device fails before anything is written.
        nodes = nodes_of(permission.slots, self._vendor.read(), dev=self._dev, proc=self._proc)
        spec = encode(container_spec(permission, nodes, self._guard))
        _write(self._grants, permission.key, grant, directory_mode=0o700)
        _write(self._specs, f"{_PREFIX}{permission.key}{_SUFFIX}", spec, directory_mode=0o755)

    def withdraw(self, key: str) -> None:
        """Take: the grant, then the spec. What is not there is fine."""
        check_key(key)
        _remove(self._grants, key)
        _remove(self._specs, f"{_PREFIX}{key}{_SUFFIX}")

    def write_driver_spec(self) -> bool:
        """Write what all GPU containers share of the driver; says whether it was another before."""
        spec = driver_spec(self._vendor.read().common)
        return _write(self._specs, _DRIVER, encode(spec), directory_mode=0o755)

    def seen(self) -> tuple[PermissionSeen, ...]:
        """Every key that has a grant or a spec on disk, whoever put it there, in the order of the keys."""
        specs = {
            name.removeprefix(_PREFIX).removesuffix(_SUFFIX): f"{self._specs}/{name}"
            for name in _names(self._specs)
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX) and name != _DRIVER
        }
        grants = {name: f"{self._grants}/{name}" for name in _names(self._grants) if not _is_temporary(name)}
        return tuple(_seen(key, grants.get(key), specs.get(key)) for key in sorted(grants.keys() | specs.keys()))


def _seen(key: str, grant_file: str | None, spec_file: str | None) -> PermissionSeen:
    grant, grant_trouble = _read(grant_file, "its grant", key)
    spec, spec_trouble = _read(spec_file, "its spec", key)
    troubles = [trouble for trouble in (grant_trouble, spec_trouble) if trouble]
    said = [content for content in (grant, spec) if content is not None]
    if len({(content.container_id, content.generation, content.slots) for content in said}) > 1:
        troubles.append("grant and spec disagree")
    return PermissionSeen(
        key=Key(key),
        has_grant=grant_file is not None,
        has_spec=spec_file is not None,
        container_id=said[0].container_id if said else None,
        generation=said[0].generation if said else None,
        slots=tuple(dict.fromkeys(slot for content in said for slot in content.slots)),
        trouble="; ".join(troubles) or None,
    )


def _read(file: str | None, what: str, key: str) -> tuple[Content | None, str | None]:
    if file is None:
        return None, None
    try:
        text = contents(file)
        return (read_grant(text) if what == "its grant" else read_container_spec(text, key)), None
    except (Malformed, OSError) as error:
        return None, f"{what} cannot be read: {error}"


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208  # names are all that is wanted
    except FileNotFoundError:
        return []


def _temporary(name: str) -> str:
    # Not a spec's suffix, so that the engine passes it over; not a key either, so that no guard is ever asked for it.
    return f".{name}.new"


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".new")


def _write(directory: Path, name: str, text: bytes, *, directory_mode: int) -> bool:
    """Put a file in place in one step, lasting; False when it was there like this already.

    The temporary file lies in the directory itself: the engine notices a file renamed within its spec directory, not
    one that comes in from elsewhere.
    """
    directory.mkdir(mode=directory_mode, parents=True, exist_ok=True)
    path = directory / name
    if _stands(path, text):
        return False
    temporary = directory / _temporary(name)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(fd, FILE_MODE)
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(text)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    _sync(directory)
    return True


def _stands(path: Path, text: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return os.fstat(fd).st_mode & 0o7777 == FILE_MODE and file.read(len(text) + 1) == text


def _remove(directory: Path, name: str) -> None:
    with suppress(FileNotFoundError):
        (directory / _temporary(name)).unlink(missing_ok=True)
        (directory / name).unlink(missing_ok=True)
        _sync(directory)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
