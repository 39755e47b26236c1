"""The clock against a wall clock that is set, slewed and stands still."""

from ds01d.adapters.clock import Clock


class Hands:
    """A wall clock and a steady one, moved by hand."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, steady=lambda: self.steady)


def test_it_begins_with_the_wall_clock_and_goes_on_with_it() -> None:
    hands = Hands()
    clock = hands.clock()

    hands.pass_by(7)

    assert (clock.now(), clock.monotonic()) == (1_000_007.0, 57.0)


def test_a_wall_clock_that_is_set_moves_nothing_by_itself() -> None:
    hands = Hands()
    clock = hands.clock()

    hands.wall -= 3600
    hands.pass_by(1)

    assert clock.now() == 1_000_001.0
    assert clock.drift() == -3600


def test_a_wall_clock_that_ran_away_is_followed_once_and_the_jump_is_told() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += 3600

    assert clock.follow() == 3600
    assert clock.follow() == 0
    assert clock.now() == hands.wall


def test_a_wall_clock_that_is_slewed_a_little_is_not_followed() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += 5

    assert clock.follow() == 0
    assert clock.now() == 1_000_000.0


def test_the_real_clock_tells_the_time_of_day() -> None:
    clock = Clock()

    assert abs(clock.drift()) < 1
    assert clock.now() <= clock.now()
