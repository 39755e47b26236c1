"""docs/rpc.md, made from the table of methods. `python -m ds01d.api.reference [--check]` writes it, or judges it."""

import sys
from pathlib import Path

import msgspec

from ds01d.api.method import ALWAYS, Method
from ds01d.api.methods import METHODS
from ds01d.api.openrpc import schemas_of

FILE = Path(__file__).parents[2] / "docs" / "rpc.md"

_HEAD = """# The methods

Made from `ds01d/api/methods.py` by `python -m ds01d.api.reference`; `rpc.discover` gives the same for programs.

JSON-RPC 2.0 as `POST /rpc` on `/run/ds01/ds01d.sock`, parameters by name, single or in batches of up to 20:

```
curl -s --unix-socket /run/ds01/ds01d.sock -H 'Content-Type: application/json' http://ds01/rpc \\
  -d '{"jsonrpc": "2.0", "id": 1, "method": "system.status", "params": {}}'
```

With the header `Ds01-Show: text` the body is what a person reads, with `Ds01-Show: json` the bare result; `Ds01-Exit`
is then the exit code of a command. `GET /events` streams what happens, a JSON object a line. `GET /healthz` says `ok`.
"""


def markdown() -> str:
    """The whole page."""
    parts = [_HEAD, *[_method(m) for m in sorted(METHODS, key=lambda m: m.name)], _errors()]
    return "\n".join(parts)


def _method(m: Method) -> str:
    lines = [f"## {m.name}", "", m.doc, "", f"For: {m.access.words}.", ""]
    fields = msgspec.structs.fields(m.params)
    if fields:
        properties = schemas_of([m.params])[m.params.__name__]["properties"]
        lines += ["| parameter | type | | |", "|---|---|---|---|"]
        for f in fields:
            schema = properties[f.encode_name]
            default = "required" if f.required else _default(schema.get("default"))
            lines.append(f"| `{f.encode_name}` | {_type(schema)} | {default} | {schema.get('description', '')} |")
        lines.append("")
    names = ", ".join(f"`{f.encode_name}`" for f in msgspec.structs.fields(m.result))
    lines.append(f"Result `{m.result.__name__}`: {names or 'empty'}.")
    if m.errors:
        lines += ["", "Errors: " + ", ".join(f"`{k.kind}`" for k in m.errors) + "."]
    return "\n".join([*lines, ""])


def _errors() -> str:
    kinds = sorted({k for m in METHODS for k in (*m.errors, *ALWAYS)}, key=lambda k: -k.code)
    lines = ["## Errors", "", "| code | kind | exit code | |", "|---|---|---|---|"]
    lines += [f"| {k.code} | `{k.kind}` | {k.exit_code} | {(k.__doc__ or '').strip()} |" for k in kinds]
    return "\n".join([*lines, ""])


def _type(schema: dict[str, object]) -> str:
    match schema:
        case {"anyOf": list(choices)}:
            return " or ".join(_type(c) for c in choices if c.get("type") != "null")
        case {"enum": list(words)}:
            return " or ".join(f"`{w}`" for w in words)
        case {"type": "array", "items": dict(item)}:
            return f"list of {_type(item)}"
        case {"type": str(word)}:
            return word
        case _:
            return "value"


def _default(value: object) -> str:
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def main() -> int:
    """Write the page, or say that it is not current."""
    made = markdown()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(made)
        return 0
    if FILE.exists() and FILE.read_text() == made:
        return 0
    sys.stderr.write("docs/rpc.md is not what the table of methods says: run `python -m ds01d.api.reference`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
