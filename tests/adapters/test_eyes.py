"""Slots are given by what is seen now: a request waits for a picture, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ds01d.adapters import eyes as eyes_module
from ds01d.adapters.eyes import Eyes
from ds01d.adapters.procfs import Procfs
from ds01d.core.events import Blinded, Event, Probed
from ds01d.model.probe import Blind, Picture


class Cards:
    """A driver that shows what a test says."""

    def __init__(self) -> None:
        self.shows: Picture | Blind = Picture(at=0.0, revision=1, driver="580", gpus=())
        self.looks = 0
        self.often = asyncio.Event()

    async def poll(self) -> Picture | Blind:
        self.looks += 1
        if self.looks >= 3:
            self.often.set()
        await asyncio.sleep(0)
        return self.shows


@asynccontextmanager
async def watching(cards: Cards, posted: list[Event], interval_s: float) -> AsyncIterator[Eyes]:
    eyes = Eyes(cards, Procfs(), post=posted.append, name_of=lambda _: None, interval_s=interval_s)
    running = asyncio.create_task(eyes.run())
    try:
        yield eyes
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_request_that_finds_no_picture_waits_for_one_and_many_share_it() -> None:
    cards, posted = Cards(), list[Event]()
    async with watching(cards, posted, 3600.0) as eyes, asyncio.timeout(5):
        await asyncio.gather(*(eyes.fresh() for _ in range(50)))

    assert cards.looks == 1
    assert [type(event) for event in posted] == [Probed]


async def test_a_picture_younger_than_two_polls_is_not_taken_again() -> None:
    cards, posted = Cards(), list[Event]()
    async with watching(cards, posted, 3600.0) as eyes:
        await eyes.observe()
        await eyes.fresh()

    assert cards.looks == 1


async def test_while_the_driver_is_not_seen_it_is_asked_again_until_it_is() -> None:
    cards, posted = Cards(), list[Event]()
    good, cards.shows = cards.shows, Blind(reason="the driver is being loaded")
    async with watching(cards, posted, 0.05) as eyes, asyncio.timeout(5):
        waiting = asyncio.create_task(eyes.fresh())
        await cards.often.wait()
        assert not waiting.done()
        cards.shows = good
        await waiting

    assert isinstance(posted[0], Blinded)
    assert isinstance(posted[-1], Probed)


async def test_a_picture_says_for_how_long_it_is_good() -> None:
    posted = list[Event]()
    async with watching(Cards(), posted, 7.0) as eyes:
        await eyes.observe()

    assert isinstance(posted[0], Probed)
    assert posted[0].good_for_s == 7.0 * eyes_module.POLLS_GOOD


async def test_a_look_for_a_proof_that_finds_the_driver_silent_is_told_and_is_no_picture_to_give_by() -> None:
    cards, posted = Cards(), list[Event]()
    eyes = Eyes(cards, Procfs(), post=posted.append, name_of=lambda _: None, interval_s=3600.0)
    await eyes.observe()
    cards.shows = Blind(reason="NVML did not answer for 5 s")

    assert await eyes.poll() == cards.shows

    assert posted[1:] == [Blinded(reason="NVML did not answer for 5 s")]
    waiting = asyncio.create_task(eyes.fresh())
    await asyncio.sleep(0)
    assert not waiting.done(), "the last good picture is still young, and yet no longer true"
    waiting.cancel()


async def test_after_a_look_for_a_proof_that_found_the_driver_silent_the_next_picture_is_taken_at_once() -> None:
    cards, posted = Cards(), list[Event]()
    async with watching(cards, posted, 3600.0) as eyes, asyncio.timeout(5):
        good, cards.shows = cards.shows, Blind(reason="NVML did not answer for 5 s")
        await eyes.poll()
        cards.shows = good
        await eyes.poll()
        await cards.often.wait()
        await asyncio.sleep(0.01)

    assert [type(event) for event in posted] == [Blinded, Probed]
