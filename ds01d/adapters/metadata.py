"""container-metadata/NAME._.UID.json: what other programs may want to know of a container. Written, never read back."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from ds01d.adapters.recorder_file import Readers, let_read
from ds01d.adapters.recorder_format import stamp
from ds01d.model.metadata import ContainerMetadata

_MODE = 0o640


class MetadataFiles:
    """The directory; its calls block, are best effort, and belong into the recorder's thread (`Recorder.do`)."""

    def __init__(self, directory: Path, *, readers: Readers) -> None:
        self._directory = directory
        self._readers = readers

    def write(self, value: ContainerMetadata) -> None:
        """Write one anew, in one step. Raises OSError."""
        document = msgspec.structs.asdict(value) | {
            name: stamp(at) if at is not None else None
            for name, at in (
                ("allocated_at", value.allocated_at),
                ("stopped_at", value.stopped_at),
                ("deadline", value.deadline),
            )
        }
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        path = self._path(value.engine_name)
        new = path.with_suffix(".tmp")
        with suppress(FileNotFoundError):
            new.unlink()
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            os.fchmod(fd, _MODE)
            let_read(fd, self._readers)
            file.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        new.replace(path)

    def remove(self, engine_name: str) -> None:
        """Forget one; one that is not there is forgotten already."""
        self._path(engine_name).unlink(missing_ok=True)

    def keep_only(self, engine_names: frozenset[str]) -> None:
        """Remove the files of containers that are gone: after a start, of what went while nobody looked."""
        with suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                if path.suffix == ".tmp" or (path.suffix == ".json" and path.stem not in engine_names):
                    path.unlink(missing_ok=True)

    def _path(self, engine_name: str) -> Path:
        assert "/" not in engine_name, "the name of a container has no slash"
        return self._directory / f"{engine_name}.json"
