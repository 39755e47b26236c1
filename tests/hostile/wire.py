"""Requests as bytes on a connection, right and wrong: heads, bodies in chunks, several at once, halves."""

import random
from typing import Final

import msgspec

from tests.hostile.words import Speaker, gnawed, write

METHODS: Final = ("POST", "GET", "HEAD", "OPTIONS", "CONNECT", "PUT", "post", "P\0ST", "PRI", "A" * 300, "")
TARGETS: Final = (
    "/rpc",
    "/events",
    "/healthz",
    "/metrics",
    "/",
    "*",
    "//rpc",
    "/rpc/..",
    "/%2e%2e/etc/passwd",
    "/rpc?x=1#f",
    "http://ds01/rpc",
    "http://[::1/rpc",
    "http://a:99999/rpc",
    "ds01:443",
    "/\xff\xfe",
    "/" + "a" * 9000,
    "/%zz%00",
    "rpc",
    "",
)
VERSIONS: Final = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.", "http/1.1", "HTTP/1.1 x", "")
HEADERS: Final = (
    ("Origin", "http://evil.example"),
    ("Connection", "close"),
    ("Connection", "keep-alive"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Upgrade", "h2c"),
    ("Expect", "100-continue"),
    ("Expect", "nothing"),
    ("Ds01-Show", "text"),
    ("Ds01-Show", "json"),
    ("Ds01-Show", "html"),
    ("Ds01-Terminal", "120 colour"),
    ("Ds01-Terminal", "99999999999999999999"),
    ("Ds01-Terminal", "-1 \x1b[0m"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "br"),
    ("Content-Type", "application/json"),
    ("Content-Type", "text/plain"),
    ("Content-Type", "application/json; charset=utf-7"),
    ("Content-Type", "multipart/form-data; boundary="),
    ("Content-Length", "0"),
    ("Content-Length", "5"),
    ("Content-Length", "+5"),
    ("Content-Length", "-1"),
    ("Content-Length", "0x10"),
    ("Content-Length", "99999999999999999999"),
    ("Content-Length", "5, 5"),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip, chunked"),
    ("Transfer-Encoding", "chunked, identity"),
    ("transfer-encoding", "xchunked"),
    ("Host", ""),
    ("Host", "a b"),
    ("Cookie", "a=b; " * 500),
    ("Sec-WebSocket-Key1", "x"),
    ("X" * 300, "y"),
    ("X", "y" * 9000),
    ("X y", "z"),
    ("X\0", "z"),
    ("X", "a\r\n folded"),
    ("X", "\xff\xfe"),
    ("Range", "bytes=0-1"),
    ("If-None-Match", "*"),
)


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent on one connection."""

    raw: bytes
    #: Well-formed HTTP with one POST to /rpc: the answer has to be one, and to be JSON-RPC.
    body: bytes | None = None


def letter(speaker: Speaker, rng: random.Random) -> Letter:
    """Something to send: now the JSON in it is wrong, now the HTTP around it, now the bytes."""
    pick = rng.random()
    if pick < 0.55:
        body = write(speaker.spoilt(), rng).encode("utf-8", "surrogatepass")[: 2**20]
        if rng.random() < 0.2:
            body = gnawed(body, rng)[: 2**20]
        return Letter(raw=post(body, rng), body=body)
    if pick < 0.75:
        return Letter(raw=b"".join(_bad_head(speaker, rng) for _ in range(rng.choice((1, 1, 2, 5, 40)))))
    if pick < 0.9:
        whole = b"".join(post(_body(speaker, rng), rng) for _ in range(rng.choice((1, 1, 2, 3))))
        return Letter(raw=gnawed(whole, rng))
    if pick < 0.95:
        follow = f"GET {rng.choice(('/events', '/events', '/healthz'))} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return Letter(raw=follow * rng.choice((1, 1, 3)))
    if pick < 0.97:
        return Letter(raw=rng.randbytes(rng.choice((1, 10, 1000, 100_000))))
    # Many at once, each of them right: the answers have to be taken, and may not be.
    return Letter(raw=b"".join(post(_body(speaker, rng), rng) for _ in range(rng.choice((10, 60)))))


def post(body: bytes, rng: random.Random) -> bytes:
    """A right request around a body."""
    head = b"POST /rpc HTTP/1.1\r\nHost: ds01\r\nContent-Type: application/json\r\n"
    if rng.random() < 0.7:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunks(body, rng) + b"0\r\n\r\n"


def _body(speaker: Speaker, rng: random.Random) -> bytes:
    return write(speaker.call(), rng).encode("utf-8", "surrogatepass")


def _chunks(body: bytes, rng: random.Random, *, right: bool = True) -> bytes:
    made, at = b"", 0
    while at < len(body):
        part = body[at : at + rng.choice((1, 7, 100, 65536))] if len(body) < 2000 else body[at : at + 65536]
        size = b"%x" % len(part)
        if not right and rng.random() < 0.3:
            size = rng.choice((b"zz", b"-1", b"0x5", b"ffffffffffffffffff", b"", b"5;x=" + b"y" * 5000, b" 5"))
        made += size + b"\r\n" + part + (b"\r\n" if right or rng.random() < 0.9 else b"\n")
        at += len(part)
    return made


def _bad_head(speaker: Speaker, rng: random.Random) -> bytes:
    body = _body(speaker, rng)
    method = "POST" if rng.random() < 0.6 else rng.choice(METHODS)
    target = "/rpc" if rng.random() < 0.6 else rng.choice(TARGETS)
    version = "HTTP/1.1" if rng.random() < 0.8 else rng.choice(VERSIONS)
    headers = [("Host", "x"), ("Content-Type", "application/json")]
    chunked = rng.random() < 0.3
    headers.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body))))
    if chunked:
        body = _chunks(body, rng, right=False) + rng.choice((b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"", b"0\r\n"))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        headers.insert(rng.randrange(len(headers) + 1), rng.choice(HEADERS))
    if rng.random() < 0.1:
        del headers[rng.randrange(len(headers))]
    if rng.random() < 0.02:
        headers += [(f"H{n}", "1") for n in range(rng.choice((50, 500)))]
    end = "\r\n" if rng.random() < 0.95 else rng.choice(("\n", "\r", "\r\r\n"))
    head = f"{method} {target} {version}{end}" + "".join(f"{k}: {v}{end}" for k, v in headers) + end
    return head.encode("latin-1") + body
