"""The engine's JSON and its errors, read: times, states, what names a GPU, and the one sentence that matters."""

import pytest

from ds01d.adapters.docker_errors import directory_lost, permission_lags, readable, task_left_over
from ds01d.adapters.docker_reading import Unreadable, epoch, read_images, read_inspect, read_row
from ds01d.model.facts import EngineStatus
from tests.adapters.fake_engine import FULL_ID, inspected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("2026-11-21T11:47:06.123456789Z", 1795261626.123456789),
        ("2026-11-21T12:47:06+01:00", 1795261626.0),
        ("2026-11-21T06:17:06-05:30", 1795261626.0),
    ],
)
def test_a_time_of_the_engines_has_nanoseconds_any_zone_and_a_word_for_never(text: str, seconds: float) -> None:
    assert epoch(text) == pytest.approx(seconds, abs=1e-6)


def test_what_is_no_time_is_not_taken_for_never() -> None:
    with pytest.raises(Unreadable):
        epoch("yesterday")


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"Status": "created"}, EngineStatus.CREATED),
        ({"Status": "running", "Running": True}, EngineStatus.RUNNING),
        ({"Status": "paused", "Running": True, "Paused": True}, EngineStatus.RUNNING),
        ({"Status": "restarting", "Running": True, "Restarting": True, "Pid": 0}, EngineStatus.RUNNING),
        ({"Status": "exited"}, EngineStatus.STOPPED),
        ({"Status": "dead", "Dead": True}, EngineStatus.STOPPED),
        ({"Status": "removing"}, EngineStatus.STOPPED),
        ({"Status": "exited", "Running": True}, EngineStatus.RUNNING),
    ],
)
def test_whatever_may_still_run_counts_as_running(state: dict[str, object], status: EngineStatus) -> None:
    assert read_inspect(inspected(**state)).status is status


def test_a_state_that_we_do_not_know_is_an_error() -> None:
    with pytest.raises(Unreadable, match="dreaming"):
        read_inspect(inspected(Status="dreaming"))


def test_an_exit_code_is_told_only_of_one_that_ran() -> None:
    assert read_inspect(inspected(ExitCode=127)).exit_code is None
    assert read_inspect(inspected(Status="exited", ExitCode=137)).exit_code == 137


def gpus(host: dict[str, object], *env: str, mounts: tuple[str, ...] = ()) -> tuple[str, ...]:
    answer = inspected() | {
        "HostConfig": host,
        "Config": {"Env": list(env)},
        "Mounts": [{"Source": source} for source in mounts],
    }
    return read_inspect(answer).gpus


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ({}, ()),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]}, ("nvidia.com/gpu=0",)),
        ({"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["GPU-a", "1"]}]}, ("GPU-a", "1")),
        ({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}, ("all",)),
        ({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu", "utility"]]}]}, ("0", "1")),
        ({"DeviceRequests": [{"Count": 2, "Capabilities": [["tpu"]]}]}, ()),
        ({"Devices": [{"PathOnHost": "/dev/nvidia0"}, {"PathOnHost": "/dev/kvm"}]}, ("/dev/nvidia0",)),
        ({"Privileged": True}, ("all",)),
    ],
)
def test_every_way_to_name_a_gpu_is_seen(host: dict[str, object], named: tuple[str, ...]) -> None:
    assert gpus(host) == named


def test_the_environment_names_gpus_under_the_nvidia_runtime_alone() -> None:
    visible = "NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"
    assert gpus({"Runtime": "runc"}, visible) == ()
    assert gpus({"Runtime": "nvidia"}, visible) == ("GPU-a", "GPU-b")
    assert gpus({"Runtime": "nvidia"}, visible, "NVIDIA_VISIBLE_DEVICES=void") == ()


def test_a_bind_of_a_device_or_of_all_devices_names_gpus() -> None:
    assert gpus({}, mounts=("/dev/nvidia1",)) == ("/dev/nvidia1",)
    assert gpus({}, mounts=("/dev",)) == ("all",)


def test_a_row_of_a_listing_carries_our_labels() -> None:
    labels = {"ds01.id": "l-1", "ds01.key": "k1", "ds01.uid": "1001", "ds01.user": "alice", "ds01.name": "train"}
    row = {"Id": FULL_ID, "Names": ["/other/alias", "/train._.1001"], "State": "exited", "Created": 7, "Labels": labels}
    listed, seen = read_row(row)
    assert (listed.name, listed.status, listed.created_at) == ("train._.1001", EngineStatus.STOPPED, 7.0)
    assert (listed.label_id, listed.label_key, listed.label_uid) == ("l-1", "k1", 1001)
    assert seen == labels


@pytest.mark.parametrize("label", ["٣", "-1", "", "9" * 5000])
def test_a_label_that_is_no_uid_is_none(label: str) -> None:
    """Anybody may write a label, and Python refuses to read thousands of digits."""
    listed, _ = read_row({"Id": FULL_ID, "State": "created", "Labels": {"ds01.uid": label, "ds01.gid": label}})
    assert listed.label_uid is None
    assert listed.label_gid is None


def test_an_image_is_listed_by_each_of_its_names() -> None:
    images = read_images(
        [{"RepoTags": ["b:1", "ds01-1001/a-image:latest"], "Size": 5, "Created": 6}, {"RepoTags": ["<none>:<none>"]}]
    )
    assert [(image.reference, image.owner) for image in images] == [("b:1", None), ("ds01-1001/a-image:latest", 1001)]


HOOK = "error during container init: error running createRuntime hook #0: exit status 1, stdout: , stderr: "
RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            f"{RUNC}unable to start container process: {HOOK}ds01: cannot start: it holds no allocation now: unknown",
            "it holds no allocation now",
        ),
        (
            f'{RUNC}unable to start container process: exec: "/x": stat /x: no such file or directory: unknown',
            'exec: "/x": stat /x: no such file or directory',
        ),
        (
            f"{RUNC}error running prestart hook #0: exit status 2, stdout: , stderr: no driver: unknown",
            "no driver",
        ),
        (
            "CDI device injection failed: unresolvable CDI devices ds01/gpu=k1",
            "CDI device injection failed: unresolvable CDI devices ds01/gpu=k1",
        ),
        ("", "the engine gave no reason"),
        ("OCI runtime create failed: ", "OCI runtime create failed:"),
    ],
)
def test_of_nested_errors_the_sentence_that_matters_is_left(message: str, sentence: str) -> None:
    assert readable(message) == sentence


def test_a_page_of_error_becomes_a_line() -> None:
    assert len(readable("word\n" * 1000)) == 500
    assert "\n" not in readable("one\ntwo")


def test_only_a_view_that_runs_behind_is_called_so() -> None:
    assert permission_lags("CDI device injection failed: unresolvable CDI devices ds01/gpu=k1")
    assert permission_lags("ds01: cannot start: stale generation: the engine still had an older permission at hand")
    assert not permission_lags("ds01: cannot start: it holds no allocation now")
    assert not permission_lags("stale generation")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            f"{RUNC}{HOOK}ds01: cannot start: /workspace is not the directory that was checked when it was made",
            "/workspace was replaced by another directory",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /home/alice/my work',
            "/home/alice/my work is gone",
        ),
        (
            f'{RUNC}error mounting "/home/alice/ws" to rootfs at "/workspace": not a directory: unknown: Are you',
            "/home/alice/ws is no directory any more",
        ),
        ('invalid mount config for type "bind": field Target must not be empty', None),
        (f'{RUNC}error mounting "proc" to rootfs at "/proc": permission denied: unknown', None),
    ],
)
def test_a_directory_that_keeps_a_container_from_starting_is_told_with_what_became_of_it(
    message: str, said: str | None
) -> None:
    assert directory_lost(message) == said


def test_what_a_dead_start_left_behind_is_recognised() -> None:
    assert task_left_over(f"{RUNC}container with id exists: {FULL_ID}")
    assert task_left_over("task 1: already exists: unknown")
    task = f"/run/containerd/io.containerd.runtime.v2.task/moby/{FULL_ID}"
    assert task_left_over(f"failed to start shim: mkdir {task}: file exists: unknown")
    assert not task_left_over("mkdir /home/alice/workspace: file exists")
    assert not task_left_over("no space left on device")
