"""The state file: whole or not there. What is in the state is the core's matter; here it is bytes.

The theory. A save writes everything to `gpu-state.json.tmp`, makes it durable, gives the old file the second name
`gpu-state.json.1`, and renames the new one over the old. So at every instant at which we may be killed at least one
whole file stands there under a name that `load` knows, and one that was replaced is never looked for again.

`load` takes the file if its checksum is right. If not, it sets the file aside as `.broken` (so that the next save does
not push the good `.1` out with it) and takes `.1`, which is older: the caller then has to begin a new lineage, because
ids made after that copy were used already. A file of a newer schema, or of the scripts before us, is not broken: it is
refused, and nothing is touched.

The checksum covers lineage, revision and state, not the boot id: that says when the file was written, not what holds.

Everything blocks; it belongs into a thread.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from ds01d.adapters.store_migrations import MIGRATIONS, SCHEMA, Migration, NoWay, migrate

_NAME = "gpu-state.json"
_BALLAST_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One state, whole, as it is to be saved."""

    lineage: str
    boot_id: str
    revision: int
    #: The state as one JSON object.
    body: bytes


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """It is on disk."""

    #: The disk was full: the reserve had to be given up for this save. Worth an alert; there is no second one.
    ballast_given_up: bool = False


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A whole state, in today's schema."""

    lineage: str
    boot_id: str
    revision: int
    state: bytes
    #: It is the older copy: begin a new lineage.
    fell_back: bool = False
    #: Why the newer file was not taken.
    trouble: str = ""
    #: The schema that the file had.
    schema: int = SCHEMA


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    """There is no state file: a first start."""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """There were states, and none of them can be trusted. Nothing was touched."""

    reason: str


class StateFileError(Exception):
    """The daemon cannot start on this state directory, and would not the next time either."""


class AlreadyRunning(StateFileError):
    """Another daemon has this state."""


class TooNew(StateFileError):
    """A newer version wrote this file."""


class ScriptEra(StateFileError):
    """The file is of the scripts that went before; only its name is ours."""


class _Broken(Exception):
    """This file holds no whole state."""


class _Header(msgspec.Struct):
    schema: int
    lineage: str
    boot_id: str
    rev: int
    checksum: str
    state: msgspec.Raw


class Store:
    """The state directory, `/var/lib/ds01`."""

    def __init__(
        self, directory: Path, *, schema: int = SCHEMA, migrations: Mapping[int, Migration] = MIGRATIONS
    ) -> None:
        self._directory = directory
        self._file = directory / _NAME
        self._older = directory / f"{_NAME}.1"
        self._link = directory / f"{_NAME}.1.tmp"
        self._new = directory / f"{_NAME}.tmp"
        self._ballast = directory / "ballast"
        self._schema = schema
        self._migrations = migrations
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the directory for this process until it ends, and lay in the reserve for a full disk."""
        path = self._directory / "lock"
        # Held for reading only: a disk that is read-only can be started on, and one with writers cannot be made so.
        lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise AlreadyRunning(
                f"cannot start: another ds01d (process {holder}) holds {path}; stop it, or use that one"
            ) from None
        with suppress(OSError):  # the lock holds; only the word for who has it needs a byte on a disk that may be full
            path.write_text(f"{os.getpid()}\n")
        self._lock = lock
        self._lay_in()

    def unlock(self) -> None:
        """Let the directory go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, snapshot: Snapshot) -> Saved:
        """Replace the state; when this returns it is durable. Raises OSError, and then the old one stands."""
        checksum = _checksum(snapshot.lineage, snapshot.revision, snapshot.body)
        head = msgspec.json.encode(
            {
                "schema": self._schema,
                "lineage": snapshot.lineage,
                "boot_id": snapshot.boot_id,
                "rev": snapshot.revision,
                "checksum": checksum,
            }
        )
        parts = (head[:-1], b',"state":', snapshot.body, b"}\n")
        try:
            self._write(parts)
        except OSError as error:
            if error.errno not in _FULL or not self._give_up_ballast():
                raise
            self._write(parts)
            return Saved(ballast_given_up=True)
        return Saved()

    def load(self) -> Loaded | Empty | Unreadable:
        """Read the newest whole state. Raises `TooNew` or `ScriptEra` where it is not ours to judge."""
        troubles = []
        for path in (self._file, self._older):
            try:
                loaded = self._read(path)
            except FileNotFoundError:
                continue
            except (_Broken, OSError) as error:
                troubles.append(f"{path}: {error}")
                continue
            if path == self._file:
                return loaded
            if troubles:
                self._file.replace(self._directory / f"{_NAME}.broken")
                _fsync_directory(self._directory)
            trouble = troubles[0] if troubles else f"{self._file} is missing"
            return msgspec.structs.replace(loaded, fell_back=True, trouble=trouble)
        return Unreadable(reason="; ".join(troubles)) if troubles else Empty()

    def _write(self, parts: tuple[bytes, ...]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        # A new inode for each attempt: after a failed fsync the old one's pages may be lost and still count as clean.
        self._new.unlink(missing_ok=True)
        try:
            fd = os.open(self._new, flags, 0o600)
            with open(fd, "wb", buffering=1 << 16) as file:  # noqa: PTH123  # a descriptor, not a path
                file.writelines(parts)
                file.flush()
                os.fsync(fd)
            self._keep_old()
            self._new.replace(self._file)
            _fsync_directory(self._directory)
        except OSError:
            with suppress(OSError):
                self._new.unlink(missing_ok=True)
            raise

    def _keep_old(self) -> None:
        """Give the old file its second name without taking away its first."""
        self._link.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.link(self._file, self._link)
            self._link.replace(self._older)

    def _read(self, path: Path) -> Loaded:
        raw = path.read_bytes()
        header = _header(raw, path, self._schema)
        state = bytes(header.state)
        if _checksum(header.lineage, header.rev, state) != header.checksum:
            raise _Broken("the checksum does not fit: the file was cut short or changed")
        if header.schema != self._schema:
            try:
                document = msgspec.json.decode(state, type=dict[str, object])
                state = msgspec.json.encode(migrate(document, header.schema, self._schema, self._migrations))
            except (msgspec.DecodeError, NoWay) as error:
                raise _Broken(f"cannot bring it from schema {header.schema} to {self._schema}: {error}") from error
        return Loaded(
            lineage=header.lineage,
            boot_id=header.boot_id,
            revision=header.rev,
            state=state,
            schema=header.schema,
        )

    def _lay_in(self) -> None:
        """Reserve room for one save on a full disk. Real bytes: a sparse file reserves nothing."""
        if self._ballast.exists() and self._ballast.stat().st_size == _BALLAST_BYTES:
            return
        try:
            self._ballast.write_bytes(os.urandom(_BALLAST_BYTES))
        except OSError:
            with suppress(OSError):
                self._ballast.unlink(missing_ok=True)

    def _give_up_ballast(self) -> bool:
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True


def _header(raw: bytes, path: Path, schema: int) -> _Header:
    try:
        loose = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Broken(f"not whole: {error}") from error
    if "schema" not in loose:
        if {"gpus", "mig_enabled", "allocation_strategy"} & loose.keys():
            raise ScriptEra(
                f"cannot start: {path} is a state of the old allocator scripts, which has the same name as ours; "
                f"move it away (`mv {path} {path}.scripts`) and start again"
            )
        raise _Broken("it has no schema")
    try:
        found = msgspec.json.decode(loose["schema"], type=int)
        if found > schema:
            raise TooNew(
                f"cannot start: {path} has schema {found}, this version of ds01d knows schemas up to {schema}; "
                "install the version that wrote it, or restore a backup from before"
            )
        return msgspec.json.decode(raw, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Broken(f"its header cannot be read: {error}") from error


def _checksum(lineage: str, revision: int, body: bytes) -> str:
    digest = hashlib.sha256(f"{lineage}\n{revision}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def _fsync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
