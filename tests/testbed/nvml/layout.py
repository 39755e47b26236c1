"""The mock driver's state file as ctypes structures: the same bytes as state.h, and no behaviour."""

import ctypes

MAGIC = 0x314C4D564E313053
GPUS = 16
SLICES = 8
PROFILES = 16
PROCESSES = 64
FAULTS = 64
EVENTS = 256
NO_MIG = 0xFFFFFFFF
NO_FIGURE = 2**64 - 1

_u32, _i32, _u64 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64


def _words(*names: str) -> list[tuple[str, type[ctypes.c_uint32]]]:
    return [(name, _u32) for name in names]


class Process(ctypes.Structure):
    _fields_ = (*_words("pid", "kind", "gi", "ci", "lingers", "pad"), ("used", _u64))


class Profile(ctypes.Structure):
    _fields_ = (
        *_words("used", "number", "id", "compute", "size", "instances"),
        ("memory", _u64),
        ("name", ctypes.c_char * 32),
    )


class Slice(ctypes.Structure):
    _fields_ = (
        *_words("used", "index", "gi", "ci", "profile_id", "start", "size", "ci_compute"),
        ("total", _u64),
        ("held", _u64),
        ("uuid", ctypes.c_char * 80),
    )


class Gpu(ctypes.Structure):
    _fields_ = (
        *_words("present", "index", "minor", "lost"),
        *_words("mig", "utilisation", "utilisation_memory", "temperature"),
        *_words("power", "power_limit", "nvlink", "bus"),
        ("total", _u64),
        ("reserved", _u64),
        ("held", _u64),
        ("energy", _u64),
        *_words("process_count", "pad"),
        ("uuid", ctypes.c_char * 80),
        ("name", ctypes.c_char * 96),
        ("profiles", Profile * PROFILES),
        ("slices", Slice * SLICES),
        ("processes", Process * PROCESSES),
    )


class Fault(ctypes.Structure):
    _fields_ = (
        ("used", _u32),
        ("gpu", _i32),
        ("code", _i32),
        ("times", _i32),
        ("delay", _u64),
        ("function", ctypes.c_char * 64),
    )


class Event(ctypes.Structure):
    _fields_ = (*_words("gpu", "gi", "ci", "pad"), ("type", _u64), ("data", _u64))


class State(ctypes.Structure):
    _fields_ = (
        ("magic", _u64),
        ("size", _u64),
        ("calls", _u64),
        ("event_head", _u64),
        ("init_result", _i32),
        *_words("generation", "gpu_count", "no_permission", "no_memory_v2", "pad"),
        ("driver", ctypes.c_char * 80),
        ("nvml", ctypes.c_char * 80),
        ("faults", Fault * FAULTS),
        ("events", Event * EVENTS),
        ("gpus", Gpu * GPUS),
    )
