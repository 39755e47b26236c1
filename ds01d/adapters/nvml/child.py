"""The process that talks to the driver: reads one JSON line per request, answers with JSON lines.

It may hang for ever inside a call; its parent then abandons it. Nobody but it, `card` and `slices` imports pynvml. It
decides nothing and keeps one thing: identities, which cannot change while a handle lives, because on hardware each call
costs up to a millisecond (a poll of 8 cards with 56 slices and 56 processes makes at most 200).
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pynvml as nvml

from ds01d.adapters.nvml.card import (
    MIB,
    WORDS,
    Card,
    joined,
    memory_used_mib,
    processes,
    slice_memory_mib,
    utilisation_pct,
    words,
)
from ds01d.adapters.nvml.slices import cut_anew, read_slices
from ds01d.adapters.nvml.wire import Poll, Reading, Seen, Unidentified, Unseen, unread
from ds01d.model.probe import GpuSeen, SliceSeen, SliceUnread

#: Every so many polls the slices are read anew even if their UUIDs did not change.
FULL_READ_POLLS: Final = 120
PR_SET_PDEATHSIG: Final = 1


class Eyes:
    """One initialisation of the driver that lasts, and the cards seen through it."""

    def __init__(self, reading: Callable[[int | None], None]) -> None:
        self._reading = reading
        self._inits = 0
        self._ready = False
        self._driver = ""
        self._cards: dict[int, Card] = {}
        self._count = 0
        self._polls = 0

    def poll(self, skip: Sequence[int]) -> Seen | Unseen:
        """Look at every card; when the driver has gone and come back, do it through a new initialisation."""
        for _ in range(2):
            try:
                if not self._ready:
                    self._open()
                return self._look(frozenset(skip))
            except nvml.NVMLError as error:
                was_ready, self._ready = self._ready, False
                if error.value != nvml.NVML_ERROR_UNINITIALIZED or not was_ready:
                    return self._blind(error)
                with contextlib.suppress(nvml.NVMLError):
                    nvml.nvmlShutdown()
        return Unseen(reason=WORDS[nvml.NVML_ERROR_UNINITIALIZED])

    def _open(self) -> None:
        self._reading(None)
        nvml.nvmlInit()
        self._driver = nvml.nvmlSystemGetDriverVersion()
        self._inits += 1
        self._cards = {}
        self._ready = True

    def _blind(self, error: nvml.NVMLError) -> Unseen:
        """Give up this initialisation; pynvml counts references, so a shutdown too many does no harm."""
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
        return Unseen(reason=words(error), fresh=error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    def _look(self, skip: frozenset[int]) -> Seen:
        count = int(nvml.nvmlDeviceGetCount())
        if count != self._count:
            self._cards, self._count = {}, count
        self._polls += 1
        good: list[int] = []
        bad: list[GpuSeen] = []
        unidentified: list[Unidentified] = []
        for index in range(count):
            if index in skip:
                continue
            self._reading(index)
            try:
                if index not in self._cards:
                    self._identify(index)
                self._read(self._cards[index])
                good.append(index)
            except nvml.NVMLError as error:
                if error.value == nvml.NVML_ERROR_UNINITIALIZED:
                    raise
                lost = error.value == nvml.NVML_ERROR_GPU_IS_LOST
                known = self._cards.get(index)
                if known is None:
                    unidentified.append(Unidentified(index=index, trouble=words(error), lost=lost))
                else:
                    bad.append(unread(known.seen, words(error), lost=lost))
        # Only now, because a card identified late is a peer of those before it.
        gpus = sorted([*(self._cards[index].seen for index in good), *bad], key=lambda gpu: gpu.index)
        return Seen(init=self._inits, driver=self._driver, gpus=tuple(gpus), unidentified=tuple(unidentified))

    def _identify(self, index: int) -> None:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        card = Card(
            handle=handle,
            seen=GpuSeen(
                uuid=nvml.nvmlDeviceGetUUID(handle),
                index=index,
                minor=nvml.nvmlDeviceGetMinorNumber(handle),
                name=nvml.nvmlDeviceGetName(handle),
                memory_total_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
            ),
        )
        for other in self._cards.values():
            if joined(card.handle, other.handle):
                card.seen = msgspec.structs.replace(card.seen, nvlink=(*card.seen.nvlink, other.seen.index))
                other.seen = msgspec.structs.replace(other.seen, nvlink=tuple(sorted((*other.seen.nvlink, index))))
        self._cards[index] = card

    def _read(self, card: Card) -> None:
        used = memory_used_mib(card, card.handle)
        if not card.parts or self._polls % FULL_READ_POLLS == 0 or cut_anew(card):
            read_slices(card)
        slices: list[SliceSeen] = []
        broken: list[SliceUnread] = []
        for part in card.parts.values():
            match part.seen:
                case SliceSeen():
                    slices.append(msgspec.structs.replace(part.seen, memory_used_mib=slice_memory_mib(card, part)))
                case SliceUnread():
                    broken.append(part.seen)
        card.seen = msgspec.structs.replace(
            card.seen,
            memory_used_mib=used,
            memory_v2=card.memory_v2,
            slices=tuple(sorted(slices, key=lambda part: part.start)),
            unread=tuple(broken),
            processes=processes(card),
            utilisation_pct=None if card.seen.mig else utilisation_pct(card),
        )


def die_with_the_parent() -> None:
    """A parent that is killed takes us along, even while we hang in a call (as soon as that can be interrupted)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answer requests until the parent hangs up."""
    die_with_the_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not belong between our lines

    def say(line: Reading | Seen | Unseen) -> None:
        out.write(msgspec.json.encode(line) + b"\n")
        out.flush()

    eyes = Eyes(lambda gpu: say(Reading(gpu=gpu)))
    for line in sys.stdin.buffer:
        answer = eyes.poll(msgspec.json.decode(line, type=Poll).skip)
        say(answer)
        if isinstance(answer, Unseen) and answer.fresh:
            return


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent hung up in the middle of an answer
        main()
