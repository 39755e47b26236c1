"""Gives each order to the hands and brings exactly one event back for it. The only maker of tasks besides `app`."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from ds01d.core.effects import AnyOrder
from ds01d.core.events import Answer, Event, Uncertain
from ds01d.logs import log

#: Seconds beyond an order's own time after which the hands themselves count as stuck.
STUCK_S = 2.0


class Hands(Protocol):
    """Who carries orders out. Trouble of the world is an answer, not an exception."""

    async def perform(self, order: AnyOrder, late: Callable[[Answer], None], /) -> Answer:
        """Carry one order out; `late` brings the return of a permission order that was answered *uncertain*."""
        ...


class Runner:
    """Orders on their way."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._post: Callable[[Event], None] = _nowhere
        self._tasks: set[asyncio.Task[None]] = set()

    def bind(self, post: Callable[[Event], None]) -> None:
        """Say where answers go."""
        self._post = post

    def send(self, order: AnyOrder) -> None:
        """Begin with an order; its answer comes as an event."""
        task = asyncio.get_running_loop().create_task(self._run(order), name=f"order {order.order}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, order: AnyOrder) -> None:
        answer: Answer = Uncertain(container=order.container, order=order.order, message="no answer in time")
        try:
            async with asyncio.timeout(order.timeout_s + STUCK_S):
                answer = await self._hands.perform(order, self._post)
        except TimeoutError:
            log.warning("order.stuck", order=type(order).__name__, container=order.container)
        except Exception as fault:  # noqa: BLE001  # a bug in a hand must not leave its order without an answer
            log.exception("order.stumbled", order=repr(order)[:500])
            answer = Uncertain(container=order.container, order=order.order, message=str(fault)[:200], returned=True)
        self._post(answer)

    async def close(self) -> None:
        """Let go of every order; the engine goes on with it, and the next start-up looks."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _nowhere(_: Event) -> None:
    raise AssertionError("the runner is not bound to a loop")
