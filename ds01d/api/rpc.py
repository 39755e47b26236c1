"""JSON-RPC 2.0: one call or a batch becomes answers. The one place where any exception becomes an error object."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from ds01d.api import codec
from ds01d.api.codec import Fault
from ds01d.api.desk import Caller, Desk
from ds01d.api.method import Method
from ds01d.api.notes import Note, Notes
from ds01d.api.throttle import Limits, Throttle
from ds01d.api.waiting import StillGoing
from ds01d.logs import log
from ds01d.loop.port import Mind
from ds01d.model.errors import Bug, Refused, TooMany

#: The exit code of the commands for a request that cannot be understood.
_USAGE = 2
#: To read so much takes about as long as to answer a small call; a call of this size or less costs nothing beside.
_BYTES_PER_CALL = 2**14
_ID_TEXT_MAX = 256
_ID_NUMBER_MAX = 2**53
_MEMBERS = {"jsonrpc", "id", "method", "params"}

Id = str | int | None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no result, and what to do next."""

    code: int
    kind: str
    message: str
    hint: str = ""
    #: The exit code of the commands.
    exit_code: int = 1
    #: Of an operation that goes on: wait for it with `operation.wait`.
    operation: str | None = None

    def as_json(self) -> dict[str, object]:
        """The error object of JSON-RPC."""
        data: dict[str, object] = {"kind": self.kind, "hint": self.hint, "exit_code": self.exit_code}
        if self.operation is not None:
            data["operation"] = self.operation
        return {"code": self.code, "message": self.message, "data": data}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one call."""

    id: Id = None
    #: Nobody wants to hear of it.
    notification: bool = False
    method: str = ""
    result: msgspec.Struct | None = None
    error: Error | None = None

    def as_json(self) -> dict[str, object]:
        """The response object of JSON-RPC."""
        if self.error is not None:
            return {"jsonrpc": "2.0", "id": self.id, "error": self.error.as_json()}
        return {"jsonrpc": "2.0", "id": self.id, "result": self.result}


def error_of(e: Refused | Fault) -> Error:
    """A refusal or a broken protocol as an error."""
    if isinstance(e, Fault):
        return Error(code=e.code, kind=e.kind, message=e.message, hint=e.hint, exit_code=_USAGE)
    operation = e.operation if isinstance(e, StillGoing) else None
    return Error(code=e.code, kind=e.kind, message=e.message, hint=e.hint, exit_code=e.exit_code, operation=operation)


class Rpc:
    """Turns a decoded request into answers, for one caller."""

    def __init__(
        self,
        desk: Desk,
        methods: tuple[Method, ...],
        limits: Limits,
        throttle: Throttle,
        inspect: Callable[[Method, msgspec.Struct], None] | None = None,
    ) -> None:
        self._desk = desk
        self._methods: Mapping[str, Method] = {m.name: m for m in methods}
        self._limits = limits
        self._throttle = throttle
        self._notes = Notes()
        #: Tests hold every result against its declared type here.
        self._inspect = inspect

    @property
    def mind(self) -> Mind:
        """The one who decides."""
        return self._desk.mind

    async def answer(self, body: bytes, caller: Caller) -> Answer | list[Answer]:
        """The answer to a call, or those to a batch; a body that is no JSON is one answer too."""
        try:
            self._throttle.spend(caller.actor.uid, len(body) // _BYTES_PER_CALL)
            request = codec.decode(body)
            if not isinstance(request, list):
                return await self._one(request, caller)
            if not 1 <= len(request) <= self._limits.batch:
                raise codec.invalid_request(f"a batch holds 1 to {self._limits.batch} calls, not {len(request)}")
        except TooMany as e:
            return Answer(error=error_of(e))
        except Fault as e:
            return self._unreadable(e, caller)
        answers = []
        for part in request:
            answers.append(await self._one(part, caller))
            # Most calls never wait for anything: without this others would wait for the whole batch.
            await asyncio.sleep(0)
        return answers

    def _unreadable(self, fault: Fault, caller: Caller) -> Answer:
        """The answer to what is no call: it costs as much as one."""
        try:
            self._throttle.spend(caller.actor.uid)
        except TooMany as e:
            return Answer(error=error_of(e))
        return Answer(error=error_of(fault))

    async def _one(self, request: object, caller: Caller) -> Answer:
        began = time.monotonic()
        id_: Id = None
        name, notification = "", False
        result: msgspec.Struct | None = None
        error: Error | None = None
        try:
            call = _call(request)
            id_, notification = _id(call), "id" not in call
            self._throttle.spend(caller.actor.uid)
            name, params = _target(call)
            result = await self._run(name, params, caller)
        except (Refused, Fault) as e:
            error = error_of(e)
        except Exception:  # noqa: BLE001
            # The door: a bug of ours costs its caller one answer, and is told in full to the log.
            log.exception("rpc.failed", method=name, user=caller.actor.name)
            error = error_of(Bug("cannot answer: a fault of ours, and it was written down", hint="tell an operator"))
        kind = error.kind if error is not None else "ok"
        self._notes.keep(Note(caller.actor, name, kind, time.monotonic() - began))
        return Answer(id=id_, notification=notification, method=name, result=result, error=error)

    async def _run(self, name: str, params: object, caller: Caller) -> msgspec.Struct:
        method = self._methods.get(name)
        if method is None:
            raise Fault(
                codec.METHOD_NOT_FOUND,
                "method_not_found",
                f"cannot find a method {name[:80]!r}",
                "`rpc.discover` lists all",
            )
        wish = codec.convert(params, method.params)
        method.access.admit(caller.actor, wish)
        with self._throttle.running(caller.actor.uid):
            result = await method.run(self._desk, caller, wish)
        if self._inspect is not None:
            self._inspect(method, result)
        return result


def _call(request: object) -> dict[str, object]:
    if not isinstance(request, dict):
        raise codec.invalid_request("it is not an object")
    unknown = sorted(set(request) - _MEMBERS)
    if unknown:
        raise codec.invalid_request(f"unknown member {unknown[0][:80]!r}")
    if request.get("jsonrpc") != "2.0":
        raise codec.invalid_request('"jsonrpc" has to be "2.0"')
    return request


def _id(call: dict[str, object]) -> Id:
    match call.get("id"):
        case None:
            return None
        case str(text) if len(text) <= _ID_TEXT_MAX:
            return text
        case int(number) if not isinstance(number, bool) and abs(number) <= _ID_NUMBER_MAX:
            return number
        case _:
            raise codec.invalid_request(
                f'"id" has to be a text of at most {_ID_TEXT_MAX} characters, an integer or null'
            )


def _target(call: dict[str, object]) -> tuple[str, object]:
    method = call.get("method")
    if not isinstance(method, str):
        raise codec.invalid_request('"method" has to be a text')
    params = call.get("params", {})
    if isinstance(params, list):
        raise Fault(
            codec.INVALID_PARAMS, "invalid_params", "cannot take params by position", 'name them: {"name": "…"}'
        )
    if not isinstance(params, dict):
        raise codec.invalid_request('"params" has to be an object')
    return method, params
