"""ds01d.yaml as settings, every fault found in one reading."""

import msgspec
import yaml

from ds01d.adapters.config_policy import refuse_others
from ds01d.adapters.config_yaml import Sheet, Wrong, duration, join, text
from ds01d.model.complaint import Complaint
from ds01d.model.settings import Intervals, LogLevel, Settings

#: Looking more often than this (seconds) costs more than it shows.
_INTERVAL_MIN_S = 1.0


def read_settings(file: str, raw: bytes) -> tuple[Settings, list[Complaint]]:
    """Read it all; with complaints the settings are not to be used."""
    sheet = Sheet(file)
    root = sheet.section(sheet.open(raw), "")
    refuse_others(sheet, root, "", ("engine", "intervals", "log"))
    built_in = Settings()
    engine = sheet.section(root.get("engine"), "engine")
    refuse_others(sheet, engine, "engine", ("address",))
    address = built_in.engine_address
    if "address" in engine:
        address = sheet.read(engine["address"], "engine.address", _address, address)
    log = sheet.section(root.get("log"), "log")
    refuse_others(sheet, log, "log", ("level",))
    level = built_in.log_level
    if "level" in log:
        level = sheet.read(log["level"], "log.level", _level, level)
    settings = Settings(engine_address=address, log_level=level, intervals=_intervals(sheet, root.get("intervals")))
    return settings, sheet.complaints


def _intervals(sheet: Sheet, node: yaml.Node | None) -> Intervals:
    found = sheet.section(node, "intervals")
    names = Intervals.__struct_fields__
    refuse_others(sheet, found, "intervals", names)
    given = {
        name: sheet.read(found[name], join("intervals", name), duration("s", _INTERVAL_MIN_S), _INTERVAL_MIN_S)
        for name in names
        if name in found
    }
    return msgspec.structs.replace(Intervals(), **given)


def _address(node: yaml.Node) -> str:
    address = text(node)
    if not address.startswith("unix:///"):
        raise Wrong(f"expected the engine's socket, `unix:///var/run/docker.sock`, got `{address}`")
    return address


def _level(node: yaml.Node) -> LogLevel:
    level = text(node)
    if level not in tuple(LogLevel):
        raise Wrong(f"expected one of {', '.join(LogLevel)}, got `{level}`")
    return LogLevel(level)
