"""A long storm with all faults, for people: rounds in one box, judged after each, told in a report as it goes."""

import argparse
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.soak.run import Order, place, run
from tests.system.disk import Disk, small_disk
from tests.system.house import House

#: Kills of the daemon in one round, and of the engine.
_ROUND, _ENGINE = 25, 2
#: What a kill takes with everything around it, seconds.
_KILL_S = 2.0


class Faults:
    """Besides the kills: a disk that hangs, a driver that is slow, gone, or back."""

    def __init__(self, house: House, disk: Disk, seed: str) -> None:
        self._house, self._disk = house, disk
        self._random = random.Random(f"{seed}/faults")
        self._over = threading.Event()
        self.count = {"disk frozen": 0, "driver slow": 0, "driver unloaded": 0}
        self._thread = threading.Thread(target=self._run, name="faults")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No more of them; all is as it should be."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        nvml = self._house.server.nvml
        while not self._over.wait(self._random.uniform(5, 20)):
            what = self._random.choice(list(self.count))
            self.count[what] += 1
            match what:
                case "disk frozen":
                    self._disk.freeze(round(self._random.uniform(0.5, 6), 1))
                    self._disk.thawed()
                case "driver slow":
                    nvml.fault("*", delay_ms=self._random.choice([50, 2000, 20000]), times=3)
                case _:
                    nvml.unload_driver()
                    self._over.wait(self._random.uniform(1, 6))
                    nvml.load_driver()
            nvml.clear_faults()


def main() -> int:
    """Storm until both the hours and the kills that were asked for are through; 1 where something was not right."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--engine", choices=["trixie", "engine28"], default="trixie")
    parser.add_argument("--live-restore", action="store_true")
    parser.add_argument(
        "--root-every", type=float, default=0.0, metavar="SECONDS", help="raw commands by root; 0: none"
    )
    parser.add_argument("--report", type=Path, default=Path("soak.txt"))
    wish = parser.parse_args()
    with wish.report.open("w", encoding="utf-8") as report:

        def tell(line: str) -> None:
            print(line, flush=True)
            report.write(f"{line}\n")
            report.flush()

        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        tell(f"soak of {commit.stdout.strip()}, {time.strftime('%Y-%m-%d %H:%M')}, {wish.engine}, SEED={wish.seed}")
        with (
            small_disk() as disk,
            place(image=wish.engine, live_restore=wish.live_restore, prepare=disk.put_under) as house,
        ):
            return _rounds(wish, house, disk, tell)


def _rounds(wish: argparse.Namespace, house: House, disk: Disk, tell: Callable[[str], None]) -> int:
    began, kills, number, faulty = time.monotonic(), 0, 0, 0
    pause_s = max(0.6, wish.hours * 3600 / max(wish.kills, 1) - _KILL_S)
    while kills < wish.kills or time.monotonic() - began < wish.hours * 3600:
        number += 1
        house.clear()
        order = Order(
            seed=f"{wish.seed}-{number}",
            kills=min(_ROUND, max(1, wish.kills - kills)) if kills < wish.kills else _ROUND,
            engine_kills=_ENGINE,
            live_restore=wish.live_restore,
            pause_s=pause_s,
            calm_s=20.0,
            root_every_s=wish.root_every,
            timeout_s=900 + _ROUND * 4 * pause_s,
        )
        with Faults(house, disk, order.seed) as faults:
            came = run(house.server, order, steady=faults.stop)
        kills += came.said["kills"]
        faulty += bool(came.faults)
        hours = (time.monotonic() - began) / 3600
        tell(f"\nround {number}, {hours:.2f} h, {kills} kills, SEED={order.seed}")
        tell(came.text())
        tell("faults: " + ", ".join(f"{what} {n}" for what, n in faults.count.items()))
        tell("memory: " + ", ".join(f"{kib // 1024} MiB at {age:.0f} s" for _, age, kib, _ in came.said["samples"]))
        tell(_kept(house))
    tell(f"\n{number} rounds, {kills} kills, {(time.monotonic() - began) / 3600:.2f} h: {faulty} rounds with faults")
    return 1 if faulty else 0


def _kept(house: House) -> str:
    """Memory and descriptors of everything that lives on through the rounds."""
    script = (
        "for u in ds01d docker containerd; do p=$(systemctl show -P MainPID $u.service);"
        " echo $u $(awk '/VmRSS/{print int($2/1024)}' /proc/$p/status) MiB $(ls /proc/$p/fd | wc -l) descriptors,; done"
    )
    said = house.server.exec("sh", "-c", script).stdout.split()
    return "now: " + " ".join(said).rstrip(",")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("cannot boot a server: this needs root")
    sys.exit(main())
