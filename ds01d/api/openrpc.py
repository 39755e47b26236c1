"""`rpc.discover`: the table of methods as an OpenRPC document, made from the types themselves."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from ds01d import __version__
from ds01d.api.access import ANYONE
from ds01d.api.desk import Caller, Desk
from ds01d.api.method import ALWAYS, Method
from ds01d.api.params import Nothing

_OPENRPC = "1.3.2"
_REFS = "#/components/schemas/{name}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenRPC document."""

    openrpc: str
    info: dict[str, str]
    methods: list[dict[str, Any]]
    components: dict[str, Any]


def discover(methods: tuple[Method, ...]) -> Method:
    """The method that describes these methods, and itself."""

    @cache
    def made() -> Document:
        # Once: it takes as long as fifty other calls, and anybody may ask.
        return document((*methods, described))

    async def run(_desk: Desk, _caller: Caller, _wish: Nothing) -> Document:
        """Describe every method: parameters, result, errors."""
        return made()

    described = Method("rpc.discover", Nothing, Document, ANYONE, (), run)
    return described


def document(methods: tuple[Method, ...]) -> Document:
    """The document for a table of methods."""
    types = [t for m in methods for t in (m.params, m.result)]
    return Document(
        openrpc=_OPENRPC,
        info={
            "title": "ds01d",
            "version": __version__,
            "description": "JSON-RPC 2.0 as POST /rpc on /run/ds01/ds01d.sock; parameters by name.",
        },
        methods=[_method(m) for m in sorted(methods, key=lambda m: m.name)],
        components={"schemas": schemas_of(types)},
    )


def schemas_of(types: Sequence[type]) -> dict[str, Any]:
    """The JSON schemas of these types and of what they hold, by name."""
    _, schemas = msgspec.json.schema_components(types, schema_hook=_anything, ref_template=_REFS)
    return schemas


def _anything(type_: type) -> dict[str, Any]:
    """`object` stands for whatever JSON there is: an event's details."""
    if type_ is object:
        return {"description": "any JSON"}
    raise NotImplementedError(type_)


def _method(m: Method) -> dict[str, Any]:
    return {
        "name": m.name,
        "summary": m.doc,
        "description": f"For: {m.access.words}.",
        "paramStructure": "by-name",
        "params": [_param(m, f) for f in msgspec.structs.fields(m.params)],
        "result": {"name": m.result.__name__, "schema": {"$ref": _REFS.format(name=m.result.__name__)}},
        "errors": _errors(m),
    }


def _param(m: Method, field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    schema: dict[str, Any] = schemas_of([m.params])[m.params.__name__]["properties"][field.encode_name]
    found = {"name": field.encode_name, "required": field.required, "schema": schema}
    return found | ({"description": schema["description"]} if "description" in schema else {})


def _errors(m: Method) -> list[dict[str, Any]]:
    kinds = sorted({*m.errors, *ALWAYS}, key=lambda k: -k.code)
    return [
        {
            "code": k.code,
            "message": (k.__doc__ or "").strip(),
            "data": {"kind": k.kind, "exit_code": k.exit_code},
        }
        for k in kinds
    ]
