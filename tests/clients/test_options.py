"""Reading arguments: what is meant is understood in every common spelling, what cannot be meant is named."""

import posix

import pytest

from ds01client.containers import CREATE, STOP
from ds01client.options import UsageError, absolute, parse, seconds
from ds01client.shells import EXEC
from ds01client.throwaway import DS01_RUN

HERE = posix.getcwd()


@pytest.mark.parametrize(
    "words",
    [
        ["thesis", "--gpus", "2", "--gpu-type", "full"],
        ["--gpus=2", "--gpu-type=full", "thesis"],
        ["-g2", "thesis", "--gpu-type", "full"],
        ["-g", "2", "--gpu-type=full", "thesis"],
    ],
)
def test_every_common_spelling_means_the_same(words: list[str]) -> None:
    assert parse(CREATE, words).params == {"name": "thesis", "gpus": 2, "gpu_type": "full"}


def test_short_options_can_be_written_together() -> None:
    given = parse(STOP, ["-fat30s"])

    assert {"--force", "--all", "--time"} == set(given.options)
    assert given.params["grace_s"] == 30


def test_a_value_may_look_like_an_option() -> None:
    assert parse(CREATE, ["x", "--image=-odd"]).params["image"] == "-odd"


def test_what_follows_two_dashes_is_left_as_it_is() -> None:
    given = parse(EXEC, ["thesis", "--", "ls", "--help", "--", "-x"])

    assert given.rest == ["ls", "--help", "--", "-x"]


@pytest.mark.parametrize("size", ["40g", "512M", "1.5t", "40GiB", "40gb"])
def test_a_size_is_passed_on_as_it_is_written(size: str) -> None:
    assert parse(CREATE, ["x", "--gpu-memory", size]).params["gpu_memory"] == size


def test_a_dash_alone_is_a_name() -> None:
    assert parse(STOP, ["-"]).params["name"] == "-"


WRONG = {
    ("--gpu", "2"): "there is no option --gpu; did you mean --gpus?",
    ("--zzzzzz",): "there is no option --zzzzzz",
    ("-q",): "there is no option -q",
    ("--gpus",): "--gpus needs a value: --gpus N",
    ("--gpus", "--", "x"): "--gpus needs a value: --gpus N",
    ("--gpus", "two"): "--gpus expects a whole number, such as --gpus 2, and was given 'two'",
    ("--gpus", "-1"): "--gpus expects a whole number, such as --gpus 2, and was given '-1'",
    ("--gpus", "²"): "--gpus expects a whole number, such as --gpus 2, and was given '²'",
    ("--gpus", "9" * 5000): "--gpus expects a whole number",
    ("--gpu-memory", "40"): "--gpu-memory expects a size, such as --gpu-memory 40g",
    ("--gpu-memory", "g"): "--gpu-memory expects a size",
    ("--gpu-memory", "1.2.3g"): "--gpu-memory expects a size",
    ("--gpu-memory", "40bg"): "--gpu-memory expects a size",
    ("--gpus=",): "--gpus needs a value, and was given an empty one: --gpus N",
    ("--cpu-only=yes",): "--cpu-only takes no value, and was given 'yes'",
    ("thesis", "bb", "more"): "cannot tell what 'more' is for: container-create takes NAME [IMAGE]",
    ("thesis", "--", "ls"): "cannot tell what 'ls' after -- is for",
    ("",): "NAME is empty",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_meant_is_named(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(CREATE, list(words))

    assert str(caught.value).startswith(WRONG[words])


def test_a_command_without_two_dashes_is_shown_with_them() -> None:
    with pytest.raises(UsageError, match=r"such as: container-exec thesis -- ls -la"):
        parse(EXEC, ["thesis", "ls", "-la"])
    with pytest.raises(UsageError, match=r"such as: ds01-run pytorch -- python train.py"):
        parse(DS01_RUN, ["--rm", "pytorch", "python", "train.py"])


@pytest.mark.parametrize(("text", "meant"), [("30s", 30), ("1h30m", 5400), ("0s", 0), ("2d", 172800), ("90m", 5400)])
def test_a_duration_is_read(text: str, meant: int) -> None:
    assert seconds("-t", text) == meant


@pytest.mark.parametrize("text", ["30", "s", "1x", "m30", "1h30", "-5s", "1.5h", "٣s", "9" * 40 + "s"])
def test_a_duration_that_could_mean_anything_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="-t expects"):
        seconds("-t", text)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/data", "/data"),
        ("data", f"{HERE}/data"),
        ("./data", f"{HERE}/data"),
        (".", HERE),
        ("./", HERE),
        ("../x", f"{HERE}/../x"),
        ("~/x", f"{posix.environ[b'HOME'].decode()}/x"),
        ("~", posix.environ[b"HOME"].decode()),
        ("~bob/x", f"{HERE}/~bob/x"),
    ],
)
def test_a_directory_is_named_from_the_root(path: str, meant: str) -> None:
    assert absolute(path) == meant
