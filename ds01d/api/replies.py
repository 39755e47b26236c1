"""Answers as HTTP responses: plain JSON-RPC, or, where the caller's headers ask for it, the bare result or its text.

`Ds01-Show: text|json` asks; `Ds01-Exit` is the exit code of the command, `Ds01-Message` a line for its error stream.
"""

from urllib.parse import quote

from aiohttp import web

from ds01d import __version__
from ds01d.api import codec, render
from ds01d.api.render.page import Page, terminal
from ds01d.api.rpc import Answer, Error, error_of

SHOW, TERMINAL, EXIT, MESSAGE, VERSION = "Ds01-Show", "Ds01-Terminal", "Ds01-Exit", "Ds01-Message", "Ds01-Version"


def response(request: web.BaseRequest, answer: Answer | list[Answer], *, now: float, me: str) -> web.Response:
    """The response to a call or a batch, in the form that the caller asked for."""
    how = request.headers.get(SHOW)
    if how is None:
        return _plain(answer)
    if how not in {"text", "json"}:
        return refusal(request, 400, f"cannot show it as {how[:40]!r}: expected text or json")
    if isinstance(answer, list):
        return refusal(request, 400, "cannot show a batch: send the calls one by one, or leave Ds01-Show out")
    if answer.error is not None:
        return error(request, answer.error, 200)
    assert answer.result is not None
    if how == "json":
        return _body(codec.encode(answer.result) + b"\n", "application/json", 0)
    columns, colour = terminal(request.headers.get(TERMINAL, ""))
    page = Page(now=now, me=me, columns=columns, colour=colour)
    shown = _body(render.text(answer.result, page).encode(), "text/plain", 0)
    beside = render.aside(answer.result, page)
    if beside:
        shown.headers[MESSAGE] = quote(beside)
    return shown


def error(request: web.BaseRequest, no: Error, status: int) -> web.Response:
    """A refusal, in the form that the caller asked for."""
    match request.headers.get(SHOW):
        case "text":
            return _body(render.refusal(no.message, no.hint).encode(), "text/plain", no.exit_code, status)
        case "json":
            return _body(codec.encode({"error": no}) + b"\n", "application/json", no.exit_code, status)
        case _:
            return _body(codec.encode(Answer(error=no).as_json()) + b"\n", "application/json", no.exit_code, status)


def refusal(request: web.BaseRequest, status: int, message: str, **headers: str) -> web.Response:
    """An HTTP request that does not get as far as JSON-RPC; the connection ends with it."""
    no = error(request, error_of(codec.Fault(codec.INVALID_REQUEST, "invalid_request", message)), status)
    no.headers.update(headers)
    no.force_close()
    return no


def _plain(answer: Answer | list[Answer]) -> web.Response:
    if isinstance(answer, Answer):
        if answer.notification:
            return web.Response(status=204)
        code = answer.error.exit_code if answer.error is not None else 0
        return _body(codec.encode(answer.as_json()) + b"\n", "application/json", code)
    heard = [a.as_json() for a in answer if not a.notification]
    return _body(codec.encode(heard) + b"\n", "application/json", 0) if heard else web.Response(status=204)


def _body(body: bytes, content_type: str, exit_code: int, status: int = 200) -> web.Response:
    made = web.Response(status=status, body=body, content_type=content_type)
    if content_type == "text/plain":
        made.charset = "utf-8"
    made.headers[EXIT] = str(exit_code)
    made.headers[VERSION] = __version__
    return made
