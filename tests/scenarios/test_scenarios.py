"""Stories whose every consequence stands in a file that a person has read. `make golden` writes them anew."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.stage import play

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_the_story_goes_as_it_is_written(story: Path, golden: Callable[[Path, str], None]) -> None:
    golden(story, play(story.read_text()))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8


def test_a_story_that_says_what_nobody_understands_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot say"):
        play("sing alice\n----\n")
