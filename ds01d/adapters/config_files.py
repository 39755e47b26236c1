"""The one loader of /etc/ds01: reads, checks, keeps the last good copy. A bad file never takes effect.

What may stand in the policy is told in config_policy.py, who the names are in config_resolve.py. All of it blocks.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ds01d.adapters.config_policy import PolicyDocument, read_policy
from ds01d.adapters.config_resolve import swap_complaints
from ds01d.adapters.config_settings import read_settings
from ds01d.model.complaint import Complaint
from ds01d.model.settings import Settings

POLICY = "resource-limits.yaml"
SETTINGS = "ds01d.yaml"
_MEMBERS = "groups"
_SUFFIX = ".members"

#: Relative name → content, as read: what is checked is also what is kept.
_Files = dict[str, bytes]


class LoadedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy without a fault, as written; `config_resolve.resolve` makes the policy in force of it."""

    document: PolicyDocument
    #: There is no file: what is built in holds. Worth saying.
    built_in: bool = False
    #: It is the last good copy; these are the complaints about the files in /etc.
    complaints: tuple[Complaint, ...] = ()
    #: For `keep_policy`.
    files: dict[str, bytes] = {}


class LoadedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's settings without a fault; the same marks as on a policy."""

    settings: Settings
    built_in: bool = False
    complaints: tuple[Complaint, ...] = ()
    files: dict[str, bytes] = {}


class BadConfig(Exception):
    """The files cannot be used; every complaint, none of them applied."""

    def __init__(self, complaints: tuple[Complaint, ...]) -> None:
        super().__init__("\n".join(complaint.text for complaint in complaints))
        self.complaints = complaints


class ConfigFiles:
    """/etc/ds01 and /var/lib/ds01/config-last-good."""

    def __init__(self, *, etc: Path, last_good: Path) -> None:
        self._etc = etc
        self._kept_policy = last_good / "policy"
        self._kept_settings = last_good / "daemon"

    def policy(self) -> LoadedPolicy:
        """The policy on disk. Raises `BadConfig` with every complaint: keep the one in force."""
        return _policy(self._etc)

    def settings(self) -> LoadedSettings:
        """The daemon's settings on disk. Raises `BadConfig`."""
        return _settings(self._etc)

    def policy_at_start(self) -> LoadedPolicy:
        """The policy on disk, else the last good one with the complaints; raises `BadConfig` where there is none."""
        try:
            loaded = self.policy()
        except BadConfig as bad:
            try:
                kept = _policy(_present(self._kept_policy))
            except (BadConfig, OSError):
                raise bad from None
            if kept.built_in:
                raise
            return msgspec.structs.replace(kept, complaints=bad.complaints)
        return loaded

    def settings_at_start(self) -> LoadedSettings:
        """The same for the daemon's settings."""
        try:
            loaded = self.settings()
        except BadConfig as bad:
            try:
                kept = _settings(_present(self._kept_settings))
            except (BadConfig, OSError):
                raise bad from None
            if kept.built_in:
                raise
            return msgspec.structs.replace(kept, complaints=bad.complaints)
        return loaded

    def keep_policy(self, loaded: LoadedPolicy) -> None:
        """Remember this policy as the last good one. Raises OSError; the one before then stands."""
        if not loaded.built_in and not loaded.complaints:
            _keep(self._kept_policy, loaded.files)

    def keep_settings(self, loaded: LoadedSettings) -> None:
        """Remember these settings as the last good ones. Raises OSError; those before then stand."""
        if not loaded.built_in and not loaded.complaints:
            _keep(self._kept_settings, loaded.files)


def _policy(directory: Path) -> LoadedPolicy:
    complaints: list[Complaint] = []
    files = _read(directory, POLICY, complaints)
    groups = directory / _MEMBERS
    try:
        names = sorted(p.name for p in groups.iterdir() if p.name.endswith(_SUFFIX) and not p.name.startswith("."))
    except FileNotFoundError:
        names = []
    except OSError as error:
        names = []
        complaints.append(Complaint(file=str(groups), line=0, key="", message=f"cannot be read: {error.strerror}"))
    for name in names:
        files |= _read(directory, f"{_MEMBERS}/{name}", complaints)
    members = {
        name.removeprefix(f"{_MEMBERS}/").removesuffix(_SUFFIX): (str(directory / name), content)
        for name, content in files.items()
        if name != POLICY
    }
    document, found = read_policy(str(directory / POLICY), files.get(POLICY, b""), members)
    complaints += found
    complaints += swap_complaints(document)
    if complaints:
        # A group that cannot be read makes its file of members complain too: the cause goes first.
        raise BadConfig(tuple(sorted(complaints, key=lambda c: c.file != str(directory / POLICY))))
    return LoadedPolicy(document=document, built_in=POLICY not in files, files=files)


def _settings(directory: Path) -> LoadedSettings:
    complaints: list[Complaint] = []
    files = _read(directory, SETTINGS, complaints)
    settings, found = read_settings(str(directory / SETTINGS), files.get(SETTINGS, b""))
    complaints += found
    if complaints:
        raise BadConfig(tuple(complaints))
    return LoadedSettings(settings=settings, built_in=SETTINGS not in files, files=files)


def _read(directory: Path, name: str, complaints: list[Complaint]) -> _Files:
    """One file; one that is not there is no file, one that cannot be read is a complaint and never an empty one."""
    path = directory / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                complaints.append(Complaint(file=str(path), line=0, key="", message="is no regular file"))
                return {}
            if status.st_mode & stat.S_IWOTH:
                message = f"anybody may write it, so anybody could give himself GPUs: `chmod o-w {path}`"
                complaints.append(Complaint(file=str(path), line=0, key="", message=message))
            return {name: file.read()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        complaints.append(Complaint(file=str(path), line=0, key="", message=f"cannot be read: {error.strerror}"))
        return {}


def _keep(place: Path, files: Mapping[str, bytes]) -> None:
    """Replace a kept copy; whenever we are killed, the new one or the old one is found by `_present`."""
    new, old = place.with_name(f"{place.name}.new"), place.with_name(f"{place.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    for name, content in files.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o640)
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _present(place: Path) -> Path:
    return place if place.exists() else place.with_name(f"{place.name}.old")
