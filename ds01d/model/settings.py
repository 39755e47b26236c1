"""What ds01d.yaml says: the daemon's own settings, read once at start. What users may have is the policy."""

from enum import StrEnum

import msgspec


class LogLevel(StrEnum):
    """What is logged, from everything to errors only."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """How often the world is looked at; seconds."""

    nvml: float = 5.0
    proc: float = 5.0
    cgroup: float = 5.0
    listing: float = 30.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's own settings."""

    engine_address: str = "unix:///var/run/docker.sock"
    intervals: Intervals = Intervals()
    log_level: LogLevel = LogLevel.INFO
