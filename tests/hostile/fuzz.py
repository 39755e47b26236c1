"""Storms the doors for a while and judges: no fault of ours, the polite one served in time, nothing left behind."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from ds01d.api.method import ALWAYS
from ds01d.api.methods import METHODS
from tests.api.caller import Client, connect
from tests.api.fakes import BOB, CAROL, NOBODY
from tests.hostile.door import REQUESTS, SHELLS
from tests.hostile.wire import Letter, letter
from tests.hostile.words import Speaker, meant

STORMERS: Final = 16
RSS_GROWTH_KIB: Final = 8 * 1024
_LOOK_BACK: Final = 4000
_PROTOCOL: Final = frozenset({"parse_error", "invalid_request", "invalid_params", "method_not_found"})
_SHAPES: Final = ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
_KINDS: Final = {m.name: _PROTOCOL | {e.kind for e in (*m.errors, *ALWAYS)} - {"internal"} for m in METHODS}


class Fault(AssertionError):
    """Something that must not be, with what caused it."""


class Report(msgspec.Struct, kw_only=True):
    """What happened."""

    seed: str
    seconds: float
    letters: int = 0
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    polite: list[float] = msgspec.field(default_factory=list)
    before: dict[str, Any] = msgspec.field(default_factory=dict)
    after: dict[str, Any] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        waits = sorted(self.polite)
        kinds = ", ".join(f"{kind} {n}" for kind, n in self.answers.most_common())
        return (
            f"seed {self.seed}: {self.letters} letters in {self.seconds:.0f} s\nanswers: {kinds}\n"
            f"polite: {len(waits)} calls, median {waits[len(waits) // 2] * 1000:.1f} ms,"
            f" p99 {waits[len(waits) * 99 // 100] * 1000:.1f} ms, worst {waits[-1] * 1000:.1f} ms\n"
            f"before: {self.before}\nafter:  {self.after}"
        )


class Storm:
    """One run against one server."""

    def __init__(self, seed: str, seconds: float) -> None:
        self.report = Report(seed=seed, seconds=seconds)
        self.folder = Path(tempfile.mkdtemp(prefix="ds01-hostile-"))
        self.folder.chmod(0o755)
        self.path = str(self.folder / REQUESTS)
        self._log = self.folder / "log"
        self._end = 0.0
        #: The last words of each stormer, to be shown with a fault.
        self._last: dict[int, Letter] = {}

    async def run(self) -> Report:
        """Storm; raises `Fault`."""
        environment = {**os.environ, "PYTHONMALLOC": "malloc"}
        with self._log.open("wb") as log:
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.hostile.door", str(self.folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        try:
            assert server.stdout is not None
            await asyncio.wait_for(server.stdout.readline(), 20)
            # Caches fill and buffers reach their size in the first part: what counts is that it stays so.
            await self._storm(f"{self.report.seed}/warm", min(3.0, self.report.seconds / 3))
            self.report.before = await self._figures(server)
            await self._storm(self.report.seed, self.report.seconds)
            self.report.after = await self._figures(server)
            assert server.stdin is not None
            server.stdin.close()
            await asyncio.wait_for(server.wait(), 10)
            self._judge()
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()
            shutil.rmtree(self.folder)
        return self.report

    async def _storm(self, seed: str, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        try:
            async with asyncio.TaskGroup() as all_:
                all_.create_task(self._polite(seconds))
                all_.create_task(self._at_second_door(random.Random(f"{seed}/shells")))
                for n in range(STORMERS):
                    all_.create_task(self._stormer(n, random.Random(f"{seed}/{n}")))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    def _over(self) -> bool:
        return time.monotonic() > self._end

    # ---- the polite one

    async def _polite(self, seconds: float) -> None:
        person = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile.polite", str(self.folder), str(seconds)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await person.communicate()
        told: dict[str, Any] = json.loads(out)
        self.report.polite = told["waits"]
        if told["wrong"]:
            raise Fault(f"the polite one: {told['wrong']}; the storm's last words:\n{self._words()}")

    # ---- the others

    async def _stormer(self, n: int, rng: random.Random) -> None:
        speaker = Speaker(rng)
        while not self._over():
            sent = self._last[n] = letter(speaker, rng)
            self.report.letters += 1
            uid = _uid(rng.choice((BOB, BOB, BOB, CAROL, None, NOBODY)))
            with contextlib.suppress(ConnectionError):
                await self._deliver(sent, rng, speaker, uid)

    async def _deliver(self, sent: Letter, rng: random.Random, speaker: Speaker, uid: int | None) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connect(self.path, uid))
        whole = rng.random() < 0.75
        raw = sent.raw if whole else sent.raw[: rng.randrange(len(sent.raw) + 1)]
        try:
            at = 0
            while at < len(raw):
                part = len(raw) if rng.random() < 0.6 else rng.choice((1, 50, 3000))
                writer.write(raw[at : at + part])
                at += part
                if rng.random() < 0.1:
                    await asyncio.sleep(0)
            if rng.random() < 0.15:
                return  # gone at once, unread
            # Who says that he is done talking is taken for gone: of such a one no answer is demanded.
            if rng.random() < 0.3 and (sent.body is None or not whole):
                writer.write_eof()
            body = await _heard(reader, rng.choice((0.03, 0.03, 0.3, 1.0)) if sent.body is None or not whole else 10.0)
            self._weigh(sent, body, whole=whole, turned_away=uid == NOBODY)
            speaker.heard(body)
        finally:
            writer.transport.abort()

    async def _at_second_door(self, rng: random.Random) -> None:
        """Tickets that are none, halves, floods, and hangers-on."""
        loop = asyncio.get_running_loop()
        while not self._over():
            socks = [
                connect(str(self.folder / SHELLS), _uid(rng.choice((BOB, CAROL, None, NOBODY))))
                for _ in range(rng.choice((1, 1, 5, 20)))
            ]
            for sock in socks:
                line = rng.choice((b"\n", b"ticket\n", rng.randbytes(300), b"a" * 100, b"ticket-%064x\n" % 0, b""))
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(sock, line)
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.1)))
            for sock in socks:
                sock.close()

    # ---- judging

    def _weigh(self, sent: Letter, got: bytes, *, whole: bool, turned_away: bool) -> None:
        """Hold an answer against what was asked."""
        if b": a fault of ours" in got or b"HTTP/1.1 500" in got:
            raise Fault(f"a fault of ours: {got[:2000]!r}\nafter {sent.raw[:_LOOK_BACK]!r}\n{self._tail()}")
        if sent.body is None or not whole:
            return
        head, _, body = got.partition(b"\r\n\r\n")
        status = head[9:12].decode()
        if not status:
            raise Fault(f"no answer in time to {sent.raw[:_LOOK_BACK]!r}")
        self.report.answers[status] += 1
        if turned_away:
            if status not in {"403", "413", "503"}:
                raise Fault(f"a uid without an account was answered {got[:500]!r}")
            return
        if status == "204":
            return
        if status != "200":
            raise Fault(f"well-formed HTTP was answered {got[:500]!r}\nafter {sent.raw[:_LOOK_BACK]!r}")
        self._weigh_json(sent.body, json.loads(body))

    def _weigh_json(self, asked: bytes, answer: object) -> None:
        request = meant(asked)
        parts = request if isinstance(request, list) and isinstance(answer, list) else [request]
        answers = answer if isinstance(answer, list) else [answer]
        by_id = {json.dumps(p.get("id")): p for p in parts if isinstance(p, dict) and len(parts) == len(answers)}
        for one in answers:
            if not isinstance(one, dict) or set(one) not in _SHAPES:
                raise Fault(f"this is no JSON-RPC: {one}\nafter {asked[:_LOOK_BACK]!r}")
            kind = one["error"]["data"]["kind"] if "error" in one else "ok"
            self.report.answers[kind] += 1
            part = by_id.get(json.dumps(one["id"])) if len(by_id) == len(answers) else None
            method = part.get("method") if part is not None else None
            declared = _KINDS.get(method) if isinstance(method, str) else None
            if kind != "ok" and declared is not None and kind not in declared:
                raise Fault(f"{method} does not declare {kind}: {one}\nafter {asked[:_LOOK_BACK]!r}")

    def _judge(self) -> None:
        log = self._log.read_text()
        if log:
            raise Fault(f"the daemon complained:\n{log[:_LOOK_BACK]}")
        before, after = self.report.before, self.report.after
        for key in ("descriptors", "tasks", "counted", "containers"):
            if before[key] != after[key]:
                raise Fault(f"{key} were {before[key]} and are {after[key]}\n{self.report}")
        if after["counted"]:
            raise Fault(f"somebody who is gone is still counted\n{self.report}")
        if after["rss_kib"] - before["rss_kib"] > RSS_GROWTH_KIB:
            raise Fault(f"memory grew\n{self.report}")

    async def _figures(self, server: "asyncio.subprocess.Process") -> dict[str, Any]:
        client = await Client.at(self.path)
        everybody = {"all": True} if os.geteuid() == 0 else {}
        for c in (await client.result("container.list", **everybody))["containers"]:
            await client.call("container.remove", name=c["name"], user=c["user"], force=True)
        await client.close()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(b"\n")
        line = await asyncio.wait_for(server.stdout.readline(), 20)
        if not line:
            raise Fault(f"the daemon is gone:\n{self._tail()}")
        figures: dict[str, Any] = json.loads(line)
        return figures

    def _tail(self) -> str:
        return self._log.read_text()[-_LOOK_BACK:]

    def _words(self) -> str:
        return "\n".join(repr(said.raw[:300]) for said in self._last.values()) + "\n" + self._tail()


def _uid(uid: int | None) -> int | None:
    """Only root can be somebody else."""
    return uid if os.geteuid() == 0 else None


async def _heard(reader: asyncio.StreamReader, patience_s: float) -> bytes:
    """What comes within this time; one whole answer is enough."""
    got = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(patience_s):
            while part := await reader.read(65536):
                got += part
                if _whole(got):
                    break
    return got


def _whole(got: bytes) -> bool:
    head, gap, body = got.partition(b"\r\n\r\n")
    if not gap:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return b" 204 " in head[:20]
