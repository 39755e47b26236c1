"""Work that may hang for ever, such as a write to a frozen disk, in a thread of its own.

Not in a pool, because others would wait for it there; a daemon thread, because nothing may hold up our exit.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def begin(work: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Start it; the future gets its outcome whenever it returns, and nobody has to wait for that."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)  # type: ignore[arg-type] # with no error there is a result, None or not
        else:
            outcome.set_exception(error)
            outcome.exception()  # whoever stopped waiting wants no warning

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - it is told to whoever waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:  # the machine gives no more threads now
        settle(None, error)
    return outcome
