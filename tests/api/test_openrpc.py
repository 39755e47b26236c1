"""`rpc.discover` and docs/rpc.md say what the table says."""

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from ds01d.api import reference
from ds01d.api.methods import METHODS
from ds01d.api.openrpc import document
from ds01d.model import errors
from tests.api.caller import Json
from tests.api.conftest import House

HERE = Path(__file__).parent / "openrpc"


@pytest.fixture
def described() -> Json:
    return json.loads(msgspec.json.encode(document(METHODS)))


def test_the_document_is_open_rpc(described: Json) -> None:
    meta = json.loads((HERE / "meta-schema.json").read_text())
    jsonschema.Draft7Validator(meta, registry=_registry()).validate(described)

    described["methods"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(meta, registry=_registry()).validate(described)


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere(described: Json) -> None:
    schemas = described["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "." not in name, f"two types are called {name.rpartition('.')[2]}"
    for ref in _refs(described):
        assert ref.removeprefix("#/components/schemas/") in schemas, ref


def test_every_method_says_what_it_does_who_may_and_what_it_refuses_with(described: Json) -> None:
    methods = {m["name"]: m for m in described["methods"]}
    assert set(methods) == {m.name for m in METHODS}
    for m in methods.values():
        assert m["summary"].endswith(".")
        assert m["description"].startswith("For: ")
        assert {"denied", "too_many", "internal"} <= {e["data"]["kind"] for e in m["errors"]}


def test_each_kind_of_error_has_a_number_of_its_own() -> None:
    assert len({k.code for k in errors.KINDS}) == len(errors.KINDS) == len(errors.BY_KIND)


async def test_a_caller_is_given_the_document(house: House, described: Json) -> None:
    assert await (await house.client()).result("rpc.discover") == described


def test_the_reference_in_docs_is_current() -> None:
    assert reference.FILE.read_text() == reference.markdown(), "run `python -m ds01d.api.reference`"


def _registry() -> Registry[Json]:
    """OpenRPC leans on a meta-schema of its own for JSON Schema; the standard's own one says the same of ours."""
    standard = Resource.from_contents(
        jsonschema.Draft7Validator.META_SCHEMA
        | {"definitions": jsonschema.Draft7Validator.META_SCHEMA["definitions"] | {"JSONSchemaObject": _OBJECT}},
        default_specification=DRAFT7,
    )
    return Registry().with_resources(
        [("https://meta.json-schema.tools", standard), ("https://meta.json-schema.tools/", standard)]
    )


_OBJECT = {"properties": {"$ref": {"type": "string"}}}


def _refs(value: Json) -> list[str]:
    match value:
        case dict():
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [ref for inner in value.values() for ref in _refs(inner)]
        case list():
            return [ref for inner in value for ref in _refs(inner)]
        case _:
            return []
