"""The guard's parsers against Python's: thousands of mutated documents, under the sanitizers, never a yes too many."""

import json
import random
import re
import struct
import subprocess
from pathlib import Path

CONTAINER = "c0ffee" * 10 + "abcd"
GENERATION = "8f3a.17"
CASES = 6000
DEPTH = 64

STATE = json.dumps(
    {
        "ociVersion": "1.2.0",
        "id": CONTAINER,
        "status": "creating",
        "pid": 4711,
        "bundle": "/run/containerd/io.containerd.runtime.v2.task/moby/" + CONTAINER,
        "annotations": {"id": "other", "pid": 1, "text": 'ä "quoted" \\ \U0001f600\n'},
    }
).encode()
CONFIG = json.dumps(
    {
        "ociVersion": "1.2.0",
        "process": {"env": ["PATH=/bin", "root=x"], "root": {"path": "/wrong"}, "n": [1, -2.5e-7, True, None]},
        "root": {"readonly": False, "path": "/var/lib/docker/overlay2/abc/merged"},
        "mounts": [{"destination": "/workspace", "source": "/home/alice/workspace", "path": "/no"}],
    }
).encode()
GRANT = f"{CONTAINER} {GENERATION} 0,1:2\n65024:1234 /workspace\n2049:99 /data/my sets\n".encode()
PIECES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\0",
    b"0",
    b"9",
    b"-",
    b"e",
    b".",
    b"\xff",
    b"\xc3",
]
PIECES += [
    b"\\u0000",
    b"\\ud83d",
    b"\\ude00",
    b"root",
    b"path",
    b"id",
    b'"root":',
    b'{"path":"/x"}',
    b"null",
    b"\t",
    b"/",
]


def mutate(document: bytes, source: random.Random) -> bytes:
    """Spoil a document in one to four places."""
    text = bytearray(document)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(text) + 1)
        other = source.randrange(len(text) + 1)
        match source.randrange(7):
            case 0:
                del text[at : at + source.randint(1, 8)]
            case 1:
                text[at:at] = source.choice(PIECES)
            case 2 if text:
                text[at % len(text)] = source.randrange(256)
            case 3:
                text[at : at + 1] = source.choice(PIECES)
            case 4:
                text[at:at] = text[other : other + source.randint(1, 60)]
            case 5 if source.randrange(4) == 0:
                del text[at:]
            case _:
                text[at:at] = source.choice([b"[", b'{"a":']) * source.randint(1, 80)
    return bytes(text)


def verdicts(probe: Path, kind: str, cases: list[bytes]) -> list[str]:
    framed = b"".join(kind.encode() + struct.pack("<I", len(case)) + case for case in cases)
    done = subprocess.run([probe, CONTAINER, GENERATION], input=framed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(cases)
    return lines


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    made[""] = [name for name, _ in pairs]
    return made


def _loaded(text: bytes) -> dict[str, object] | None:
    """The document as Python reads it; broken UTF-8 stays as it is, an empty key lists the names in their order."""

    def no_constant(word: str) -> None:
        raise ValueError(word)

    try:
        value = json.loads(text.decode(errors="surrogateescape"), object_pairs_hook=_once, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object, space: int) -> str | None:
    """The hex of a string that the guard may use, else None."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    try:
        raw = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a pair stands for no character
        return None
    return raw.hex() if len(raw) < space else None


def _deep(text: bytes) -> bool:
    return text.count(b"{") + text.count(b"[") >= DEPTH


def _names(value: dict[str, object]) -> list[str]:
    names = value[""]
    assert isinstance(names, list)
    return names


def expected_state(text: bytes) -> str:
    value = _loaded(text)
    if value is None or any(_names(value).count(name) != 1 for name in ("id", "pid", "bundle")):
        return "no"
    pid, name, bundle = value["pid"], _text(value["id"], 129), _text(value["bundle"], 4096)
    if type(pid) is not int or not 0 < pid < 2**31 or name is None or bundle is None or not bundle.startswith("2f"):
        return "no"
    return f"ok {pid} {name} {bundle}"


def expected_config(text: bytes) -> str:
    value = _loaded(text)
    if value is None or _names(value).count("root") != 1:
        return "no"
    root = value["root"]
    if not isinstance(root, dict) or _names(root).count("path") != 1:
        return "no"
    path = _text(root["path"], 4096)
    return "no" if path is None else f"ok {path}"


def expected_grant(text: bytes) -> str:
    head = re.compile(rb"%s %s [\x21-\x7e]+\n" % (re.escape(CONTAINER.encode()), re.escape(GENERATION.encode())))
    line = re.compile(rb"(0|[1-9][0-9]*):(0|[1-9][0-9]*) (/[^\n]*)\n")
    found = head.match(text)
    if found is None or b"\0" in text:
        return "no"
    words, at = ["ok"], found.end()
    while at < len(text):
        mount = line.match(text, at)
        if mount is None or max(int(mount[1]), int(mount[2])) >= 2**64 or len(mount[3]) >= 4096:
            return "no"
        words += [f"{mount[1].decode()}:{mount[2].decode()}", mount[3].hex()]
        at = mount.end()
    return " ".join(words)


def test_a_mutated_state_is_understood_as_python_does_or_refused(probe: Path) -> None:
    source = random.Random(1)
    cases = [STATE] + [mutate(STATE, source) for _ in range(CASES)]
    for case, verdict in zip(cases, verdicts(probe, "s", cases), strict=True):
        assert verdict == expected_state(case) or (verdict == "no" and _deep(case)), case


def test_a_mutated_config_is_understood_as_python_does_or_refused(probe: Path) -> None:
    source = random.Random(2)
    cases = [CONFIG] + [mutate(CONFIG, source) for _ in range(CASES)]
    for case, verdict in zip(cases, verdicts(probe, "c", cases), strict=True):
        assert verdict == expected_config(case) or (verdict == "no" and _deep(case)), case


def test_a_mutated_grant_passes_only_as_it_was_written(probe: Path) -> None:
    source = random.Random(3)
    cases = [GRANT] + [mutate(GRANT, source) for _ in range(CASES)]
    for case, verdict in zip(cases, verdicts(probe, "g", cases), strict=True):
        assert verdict == expected_grant(case), case


def test_every_truncation_is_refused(probe: Path) -> None:
    assert set(verdicts(probe, "s", [STATE[:n] for n in range(len(STATE))])) == {"no"}
    assert set(verdicts(probe, "c", [CONFIG[:n] for n in range(len(CONFIG))])) == {"no"}


def test_a_truncated_grant_passes_only_at_the_end_of_a_line(probe: Path) -> None:
    ends = {n for n in range(1, len(GRANT) + 1) if GRANT[n - 1 : n] == b"\n"}
    cut = [GRANT[:n] for n in range(len(GRANT) + 1)]
    passed = {n for n, verdict in enumerate(verdicts(probe, "g", cut)) if verdict != "no"}
    assert passed == ends
