"""One user in a storm, inside the box: makes, starts, enters, stops, removes containers, and knows what must be true.

It trusts no listing: what it expects follows from the answers to its own requests alone. Standard library only.
"""

import http.client
import json
import os
import pwd
import random
import select
import signal
import socket
import subprocess
import time
from collections import Counter
from ctypes import c_int
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What root touches, an engine's name of a container a line, each written before the deed.
TOUCHED = Path("/run/ds01-soak-touched")
DOOR = "/run/ds01/ds01d.sock"
#: An answer that takes longer is a fault, seconds; a daemon that is killed often has to settle often.
PATIENCE_S = 120.0
#: A shell answers, and ends with its container, within this; seconds.
SHELL_S = 15.0
#: After the engine was killed nobody can know for so long what it brings back; seconds.
AFTER_ENGINE_S = 5.0
CONTAINERS_MAX = 4
SHELLS_MAX = 4
#: Refusals that are an answer at any time: no room, or no disk or driver at the moment.
USUAL = frozenset({"none_free", "quota_exceeded", "cannot_see", "cannot_save", "too_many"})
#: What a command ends with that the runtime could not begin.
NOT_RUN = 126
KINDS = ("any", "any", "any", "mig", "full", "none")


@dataclass
class Flags:
    """What the storm tells everybody: how often it killed what; the engine's number is odd while it is away."""

    daemon: "c_int"
    engine: "c_int"
    over: "c_int"


class Refused(Exception):
    """The daemon said no."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass
class Thing:
    """A container as it has to be; None: it may be so or not."""

    name: str
    there: bool | None = True
    running: bool | None = False
    shells: "list[Shell]" = field(default_factory=list)


@dataclass
class Shell:
    """An open `container-exec`; a mute one writes without end, and nobody reads it."""

    process: "subprocess.Popen[bytes]"
    mute: bool

    def says(self, word: str, timeout_s: float) -> bool:
        """Whether it gives back what is typed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            os.write(self.process.stdin.fileno(), word.encode() + b"\n")
        except BrokenPipeError:
            return False
        heard, end = b"", time.monotonic() + timeout_s
        while word.encode() not in heard:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                return False
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                return False
            heard += piece
        return True

    def close(self) -> None:
        """Let go of it, as a terminal does that is closed."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Person:
    """A user with a will of his own; `survives`: his containers outlive their engine's death."""

    def __init__(self, user: str, seed: str, flags: Flags, *, survives: bool) -> None:
        self._user, self._flags, self._survives = user, flags, survives
        self._random = random.Random(f"{seed}/{user}")
        self._things: list[Thing] = []
        self._gone: list[str] = []
        self._made = 0
        self._engine_seen, self._engine_at = 0, -AFTER_ENGINE_S
        #: Containers of this person that root had a hand in.
        self._roots: set[str] = set()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.surprises: list[str] = []
        self.worst: dict[str, float] = {}

    def become(self) -> None:
        """Be the user, for good."""
        account = pwd.getpwnam(self._user)
        os.setgroups(os.getgrouplist(self._user, account.pw_gid))
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.environ.update(HOME=account.pw_dir, USER=self._user, LOGNAME=self._user)
        os.chdir(account.pw_dir)

    def live(self) -> None:
        """Do this and that until the storm is over, then look after every shell once more."""
        while not self._flags.over.value:
            self._look_up()
            self._act()
            time.sleep(self._random.uniform(0, 0.15))
        self._look_up()
        for thing in self._things:
            for shell in tuple(thing.shells):
                self._ping(thing, shell)

    def leave(self) -> None:
        """Close every shell."""
        for thing in self._things:
            self._forget_shells(thing)

    def report(self) -> dict[str, object]:
        """What happened, and what has to be true now."""
        return {
            "user": self._user,
            "done": self.done,
            "refused": self.refused,
            "surprises": self.surprises,
            "worst_s": self.worst,
            "things": [{"name": t.name, "there": t.there, "running": t.running} for t in self._things],
            "gone": self._gone,
        }

    # ---- deciding

    def _act(self) -> None:
        dice = self._random.random()
        if not self._things or (dice < 0.25 and len(self._things) < CONTAINERS_MAX):
            self._create()
            return
        thing = self._random.choice(self._things)
        shells = sum(len(t.shells) for t in self._things)
        if thing.running is False or (thing.running is None and dice < 0.5):
            self._remove(thing) if dice > 0.85 else self._start(thing)
        elif dice < 0.5 and shells < SHELLS_MAX:
            self._enter(thing)
        elif dice < 0.75 and thing.shells:
            self._ping(thing, self._random.choice(thing.shells))
        elif dice < 0.95:
            self._stop(thing)
        else:
            self._remove(thing)

    def _look_up(self) -> None:
        """Notice what root did, and that the engine was killed: its shells are over, and so may be what ran."""
        for thing in self._things:
            if self._roots_now(thing):
                thing.there = thing.running = None
        now = self._flags.engine.value
        if now == self._engine_seen:
            return
        self._engine_seen, self._engine_at = now, time.monotonic()
        for thing in self._things:
            self._forget_shells(thing)
            if thing.running and not self._survives:
                thing.running = None

    def _touched(self, before: int) -> bool:
        """Whether the engine's death may have had a part in what happened since."""
        now = self._flags.engine.value
        return now != before or now % 2 == 1 or time.monotonic() - self._engine_at < AFTER_ENGINE_S

    def _roots_now(self, thing: Thing) -> bool:
        """Whether root had a hand in this container, up to this moment."""
        if thing.name not in self._roots and TOUCHED.exists():
            mine = f"._.{os.getuid()}"
            names = TOUCHED.read_text().splitlines()
            self._roots = {name.removesuffix(mine) for name in names if name.endswith(mine)}
        return thing.name in self._roots

    # ---- requests

    def _create(self) -> None:
        self._made += 1
        kind = self._random.choice(KINDS)
        wish = {"cpu_only": True} if kind == "none" else {"gpu_type": kind}
        thing = Thing(f"c{self._made}")
        answer = self._change("create", thing, image="bb", **wish)
        thing.there = True if answer == "done" else None
        thing.running = False if answer == "done" else None
        if answer in {"refused", "gone"}:
            self._gone.append(thing.name)
        else:
            self._things.append(thing)

    def _start(self, thing: Thing) -> None:
        answer = self._change("start", thing)
        if answer == "done":
            thing.running = True
        elif answer == "gone":
            self._part_with(thing)

    def _stop(self, thing: Thing) -> None:
        more = {"release": True} if self._random.random() < 0.4 else {}
        answer = self._change("stop", thing, **more)
        if answer == "done":
            thing.running = False
            self._shells_end(thing)
        elif answer == "gone":
            self._part_with(thing)

    def _remove(self, thing: Thing) -> None:
        if self._change("remove", thing, force=True) in {"done", "gone"}:
            self._part_with(thing)

    def _part_with(self, thing: Thing) -> None:
        """It is no more, and its name never comes again."""
        self._things.remove(thing)
        self._gone.append(thing.name)
        self._shells_end(thing)

    def _change(self, verb: str, thing: Thing, **params: object) -> str:
        """One request, sent again until it is answered: `done`, `refused`, `gone` by root's hand, or `unknown`."""
        before, began = self._flags.engine.value, time.monotonic()
        unsure = thing.running is None or thing.there is None
        request = f"{self._random.getrandbits(64):016x}"
        try:
            self._ask(f"container.{verb}", name=thing.name, request_id=request, **params)
        except Refused as no:
            self.refused[f"{verb} {no.kind}"] += 1
            if no.kind in USUAL:
                return "refused"
            if no.kind == "not_found" and self._roots_now(thing):
                return "gone"
            if unsure or self._touched(before) or self._roots_now(thing):
                thing.running = None
                return "unknown"
            self.surprises.append(f"{self._user}: {verb} {thing.name}: {no}")
            thing.running = None
            return "unknown"
        finally:
            took = time.monotonic() - began
            self.worst[verb] = max(self.worst.get(verb, 0.0), round(took, 2))
        self.done[verb] += 1
        if self._touched(before) and verb == "start" and not self._survives:
            # It was started; what became of it then, its engine knows.
            thing.running = None
            return "unknown"
        thing.there = True
        return "done"

    def _ask(self, method: str, **params: object) -> object:
        end = time.monotonic() + PATIENCE_S
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        while True:
            try:
                said = _post(body, PATIENCE_S)
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > end:
                    raise Refused("unanswered", repr(error)) from error
                time.sleep(0.1)
                continue
            if "error" not in said:
                return said["result"]
            no = said["error"]
            kind = str(no["data"]["kind"])
            if kind == "pending" and time.monotonic() < end:
                time.sleep(0.3)
                continue
            raise Refused(kind, str(no["message"]))

    # ---- shells

    def _enter(self, thing: Thing) -> None:
        before, killed, began = self._flags.engine.value, self._flags.daemon.value, time.monotonic()
        mute = self._random.random() < 0.2
        command = ["yes", "0123456789" * 8] if mute else ["cat"]
        process = subprocess.Popen(
            ["container-exec", thing.name, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        shell = Shell(process, mute)
        if self._answers(shell):
            thing.shells.append(shell)
            self.done["mute shell" if mute else "shell"] += 1
            self.worst["shell"] = max(self.worst.get("shell", 0.0), round(time.monotonic() - began, 2))
            return
        shell.close()
        # A command is not begun twice: where the daemon dies between its answer and the ticket, the client gives up.
        broken = self._flags.daemon.value != killed
        code = process.returncode
        # 126: the runtime did not come to it ("fork/exec /proc/self/exe: no such file" on a loaded 26.1), seldom.
        if thing.running and not (broken or self._touched(before) or self._roots_now(thing) or code == NOT_RUN):
            self.surprises.append(f"{self._user}: no shell in {thing.name}, exit code {code}")
        self.refused["shell (not run)" if code == NOT_RUN else "shell"] += 1

    def _answers(self, shell: Shell) -> bool:
        if not shell.mute:
            return shell.says("hello", 40.0)
        assert shell.process.stdout is not None
        if not select.select([shell.process.stdout], [], [], 40.0)[0]:
            return False
        return bool(os.read(shell.process.stdout.fileno(), 1))

    def _ping(self, thing: Thing, shell: Shell) -> None:
        """A shell in a container that nobody stopped is alive, however often the daemon was killed."""
        before = self._flags.engine.value
        if shell.mute:
            alive = shell.process.poll() is None
        else:
            alive = shell.says(f"{self._random.getrandbits(32):08x}", SHELL_S)
        if alive:
            self.done["shell alive"] += 1
            return
        thing.shells.remove(shell)
        shell.close()
        if not self._touched(before) and not self._roots_now(thing):
            self.surprises.append(f"{self._user}: a shell in {thing.name} died, exit code {shell.process.returncode}")

    def _shells_end(self, thing: Thing) -> None:
        """Its container was stopped: each shell has ended, except that one who does not read does not see it."""
        for shell in thing.shells:
            if not shell.mute:
                try:
                    shell.process.wait(SHELL_S)
                except subprocess.TimeoutExpired:
                    if not self._roots_now(thing):  # who started it again
                        self.surprises.append(f"{self._user}: a shell in {thing.name} goes on though that was stopped")
            shell.close()
        thing.shells.clear()

    def _forget_shells(self, thing: Thing) -> None:
        for shell in thing.shells:
            shell.close()
        thing.shells.clear()


class _Door(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(DOOR)


def _post(body: str, timeout_s: float) -> Any:  # noqa: ANN401  # as JSON has it
    door = _Door("ds01", timeout=timeout_s)
    try:
        door.request("POST", "/rpc", body, {"Content-Type": "application/json"})
        return json.loads(door.getresponse().read())
    finally:
        door.close()
