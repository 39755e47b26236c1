"""The mock driver library itself, asked by real pynvml in a process of its own, as the daemon's child asks it."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.nvml import layout
from tests.testbed.nvml.cards import Layout
from tests.testbed.nvml.library import environment
from tests.testbed.nvml.mock import GPU_IS_LOST, Mock

HERE = Path(__file__).parent
DEFAULT = HERE.parent / "layouts/default.json"

ONE_CUT: Layout = {
    "gpus": [
        {"uuid": "GPU-a", "name": "NVIDIA H100 80GB HBM3", "minor": 0, "memory_mib": 81559, "mig": None},
        {
            "uuid": "GPU-b",
            "name": "NVIDIA H100 80GB HBM3",
            "minor": 1,
            "memory_mib": 81559,
            "mig": {
                "slices": [
                    {
                        "profile": "3g.40gb", "gi": 2, "ci": 0, "start": 4, "size": 4,
                        "uuid": "MIG-x", "memory_mib": 40192,
                    }
                ]
            },
        },
    ]
}  # fmt: skip


@pytest.fixture
def mock(tmp_path: Path) -> Mock:
    return Mock.create(tmp_path / "state", ONE_CUT)


def ask(mock: Mock, *lines: str) -> list[object]:
    """Run statements after `nvmlInit` in a fresh process; what they `say` comes back, an NVMLError as its code."""
    program = f"""
import json
from pynvml import *
said = []
say = said.append
def code(call, *args, **more):
    try:
        call(*args, **more)
    except NVMLError as error:
        return error.value
    return 0
say(code(nvmlInit))
{chr(10).join(lines)}
print(json.dumps(said[1:] if said[0] == 0 else said))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment(mock.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    return list(json.loads(done.stdout))


CARD = "card = nvmlDeviceGetHandleByIndex(0)"
CUT = "cut = nvmlDeviceGetHandleByIndex(1); part = nvmlDeviceGetMigDeviceHandleByIndex(cut, 0)"


def test_both_sides_have_the_same_layout(mock: Mock) -> None:
    library = ctypes.CDLL(environment(mock.path)["LD_LIBRARY_PATH"] + "/libnvidia-ml.so.1")
    library.mock_state_size.restype = ctypes.c_uint64

    assert library.mock_state_size() == ctypes.sizeof(layout.State)
    assert mock.path.stat().st_size == ctypes.sizeof(layout.State)


def test_the_library_has_the_drivers_soname(mock: Mock) -> None:
    library = Path(environment(mock.path)["LD_LIBRARY_PATH"], "libnvidia-ml.so.1")

    shown = subprocess.run(["objdump", "-p", library], check=True, capture_output=True, text=True).stdout

    assert ["SONAME", "libnvidia-ml.so.1"] in [line.split() for line in shown.splitlines()]


def test_the_default_server_can_be_made_and_shown(tmp_path: Path) -> None:
    spec = json.loads(DEFAULT.read_text())

    shown = Mock.create(tmp_path / "state", DEFAULT).show()

    assert all(gpu["uuid"] in shown for gpu in spec["gpus"])
    assert all(part["uuid"] in shown for gpu in spec["gpus"] if gpu["mig"] for part in gpu["mig"]["slices"])


def test_without_a_state_file_there_is_no_driver(mock: Mock) -> None:
    mock.path.unlink()

    assert ask(mock) == [9]


def test_a_call_before_init_is_refused(mock: Mock) -> None:
    assert ask(mock, "nvmlShutdown()", "say(code(nvmlDeviceGetCount))") == [1]


def test_a_driver_that_goes_away_voids_handles_until_the_next_init(mock: Mock) -> None:
    driver = f"from tests.testbed.nvml.mock import Mock; mock = Mock({str(mock.path)!r})"

    assert ask(
        mock,
        CARD,
        driver,
        "mock.unload_driver()",
        "say(code(nvmlDeviceGetUUID, card)); say(code(nvmlInit))",
        "mock.load_driver()",
        "say(code(nvmlDeviceGetUUID, card)); say(code(nvmlInit)); say(nvmlDeviceGetUUID(card))",
    ) == [1, 9, 1, 0, "GPU-a"]


def test_a_file_made_anew_looks_like_a_reloaded_driver(mock: Mock) -> None:
    again = (
        "from tests.testbed.nvml.mock import Mock; from tests.testbed.nvml.test_mock import ONE_CUT;"
        f"Mock.create({str(mock.path)!r}, {{'gpus': ONE_CUT['gpus'][:1]}})"
    )

    assert ask(mock, "say(nvmlDeviceGetCount())", again, "say(code(nvmlDeviceGetCount))",
               "nvmlInit(); say(nvmlDeviceGetCount())") == [2, 1, 1]  # fmt: skip


def test_a_lost_card_spoils_the_look_up_of_every_other(mock: Mock) -> None:
    mock.gpu(0).lost = True

    said = ask(mock, "say(code(nvmlDeviceGetHandleByIndex, 0)); say(code(nvmlDeviceGetHandleByIndex, 1))",
               "say(code(nvmlDeviceGetHandleByUUID, 'GPU-b'))")  # fmt: skip

    assert said == [GPU_IS_LOST, 0, GPU_IS_LOST]


def test_a_fault_hits_its_function_on_its_card_so_many_times(mock: Mock) -> None:
    mock.fault("nvmlDeviceGetMemoryInfo", gpu=0, code=999, times=2)

    said = ask(mock, CARD, "other = nvmlDeviceGetHandleByIndex(1)",
               "say([code(nvmlDeviceGetMemoryInfo, h) for h in (card, other, card, card)])",
               "say(code(nvmlDeviceGetName, card))")  # fmt: skip

    assert said == [[999, 0, 999, 0], 0]


def test_every_call_is_counted(mock: Mock) -> None:
    before = mock.calls

    ask(mock, CARD, "nvmlDeviceGetUUID(card); nvmlDeviceGetMemoryInfo(card)")

    assert mock.calls - before == 4


def test_figures_that_mig_does_not_have_are_not_supported(mock: Mock) -> None:
    said = ask(
        mock, CARD, CUT,
        "say(code(nvmlDeviceGetUtilizationRates, card))",
        "say([code(f, h) for f in (nvmlDeviceGetUtilizationRates,) for h in (cut, part)])",
        "say([code(f, part) for f in (nvmlDeviceGetPowerUsage, nvmlDeviceGetMinorNumber)])",
        "say(code(nvmlDeviceGetAttributes, card)); say(nvmlDeviceGetAttributes(part).gpuInstanceSliceCount)",
        "say(bool(nvmlDeviceIsMigDeviceHandle(part))); say(bool(nvmlDeviceIsMigDeviceHandle(cut)))",
    )  # fmt: skip

    assert said == [0, [3, 3], [3, 3], 3, 3, True, False]


def test_an_enumerator_is_not_a_profile_id(mock: Mock) -> None:
    said = ask(mock, CUT,
               "say(nvmlGpuInstanceGetInfo(nvmlDeviceGetGpuInstanceById(cut, 2)).profileId)",
               "say([(p.id, p.name) for p in [nvmlDeviceGetGpuInstanceProfileInfo(cut, n) for n in (2, 9)]])",
               "say(code(nvmlDeviceGetGpuInstanceProfileInfo, cut, 14))")  # fmt: skip

    assert said == [9, [[9, "MIG 3g.40gb"], [15, "MIG 1g.20gb"]], 3]


def test_a_handle_of_a_slice_that_is_gone_is_an_invalid_argument(mock: Mock) -> None:
    gone = f"from tests.testbed.nvml.mock import Mock; Mock({str(mock.path)!r}).gpu(1).slice(2).vanish()"

    assert ask(mock, CUT, gone, "say(code(nvmlDeviceGetUUID, part))",
               "say(code(nvmlDeviceGetMigDeviceHandleByIndex, cut, 0))") == [2, 6]  # fmt: skip


def test_a_slice_lists_its_own_processes_and_its_card_all(mock: Mock) -> None:
    mock.gpu(1).add_process(os.getpid(), 100, gi=2)
    mock.gpu(1).add_process(os.getppid(), None, lingers=True)
    rows = "[(p.pid, p.usedGpuMemory) for p in nvmlDeviceGetComputeRunningProcesses({})]"

    said = ask(mock, CUT, f"say({rows.format('part')}); say({rows.format('cut')})")

    mine = [os.getpid(), 100 * 2**20]
    assert said == [[mine], [mine, [os.getppid(), None]]]


def test_a_wrong_version_word_is_told(mock: Mock) -> None:
    assert ask(mock, CARD, "say(code(nvmlDeviceGetMemoryInfo, card, version=0x02000020))") == [25]


def test_a_waiting_event_set_hears_what_happens_after_it_was_made(mock: Mock) -> None:
    mock.event(0, 0x8, 13)

    said = ask(
        mock,
        CARD,
        "events = nvmlEventSetCreate(); nvmlDeviceRegisterEvents(card, nvmlEventTypeXidCriticalError, events)",
        "say(code(nvmlEventSetWait, events, 10))",
        f"from tests.testbed.nvml.mock import Mock; mock = Mock({str(mock.path)!r})",
        "mock.event(1, 0x8, 31); mock.event(0, 0x100, 0); mock.event(0, 0x8, 79)",
        "heard = nvmlEventSetWait(events, 1000); say([heard.eventType, heard.eventData])",
        "say(code(nvmlEventSetWait, events, 10)); nvmlEventSetFree(events)",
    )

    assert said == [10, [8, 79], 10]


def test_a_profile_the_card_does_not_have_is_refused_with_those_it_has(mock: Mock) -> None:
    with pytest.raises(
        ValueError, match=r"cannot cut a 5g.50gb: NVIDIA H100 80GB HBM3 has 1g.10gb, 1g.10gb\+me"
    ) as bad:
        mock.gpu(0).add_slice(
            {"profile": "5g.50gb", "gi": 1, "ci": 0, "start": 0, "size": 5, "uuid": "MIG-n", "memory_mib": 1}
        )

    assert "MIG" not in str(bad.value)


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"\0" * 100)

    with pytest.raises(ValueError, match="not a state file of this mock, make it anew"):
        Mock(tmp_path / "other")


def test_people_drive_it_from_the_shell(tmp_path: Path) -> None:
    state = str(tmp_path / "state")

    def run(*words: str) -> str:
        command = [sys.executable, str(HERE / "mock.py"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    run("create", state, str(DEFAULT))
    run("busy", state, "0", str(os.getpid()), "2048")
    run("lose", state, "1")
    busy = run("show", state).splitlines()
    run("idle", state, "0")
    idle = run("show", state)

    assert busy[2] == f"   pid {os.getpid()}  2048 MiB"
    assert busy[3].endswith("lost")
    assert "pid" not in idle
