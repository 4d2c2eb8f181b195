"""The OpenAPI document of the admin API (spec.openapis.org/oas/v3.1.1, 2024-10), and a page for people, both made from the
table of routes. The page is plain HTML with one style, no script, nothing from elsewhere; its policy allows just that."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Any

import msgspec

from lumeproxy import __version__
from lumeproxy.dashboard import answers
from lumeproxy.dashboard.routes import PREFIX, ROUTES, Route, Who

REF = "#/components/schemas/{name}"
IDEMPOTENCY_CHARS = 255
_ABOUT = (
    "Accounts, keys, credit and usage. Every request carries an admin key as `Authorization: Bearer lume_admin_…`, made "
    "with `lumeproxy admin-key create`; it makes no calls to models, and keys for calls do not open this API. Money is "
    "nano-USD (1e-9 $), times are epoch ms. Lists come in parts: give `next_cursor` back as `cursor` until it is null. A "
    "change that takes an `Idempotency-Key` may be repeated with the same one and the same arguments: it is done once, and "
    "answered the same (and `idempotency-replayed: true`); with other arguments it is refused with 409. Errors are "
    '`{"error": {"code", "message"}}`.'
)
_WHY = {
    400: "The body is not JSON, or the request's framing is broken.",
    401: "No admin key, or one that is unknown, expired or revoked.",
    403: "A key that may not do this: one of an account, or one that only reads.",
    404: "There is no such account or key.",
    405: "This path does not take that method; `Allow` names those that it takes.",
    408: "The body did not arrive in time.",
    409: "It can't be done, and nothing was changed: the sentence says why.",
    413: "The body is too large.",
    415: "The body is compressed, which is not taken here.",
    422: "An argument is missing, unknown or beyond its limits: the sentence names it.",
    429: "Too many wrong keys came from this address; `Retry-After` says when to come again.",
    500: "A fault of the server's own.",
    503: "The database takes no request at the moment; `Retry-After` says when to come again.",
}
_ALWAYS = (401, 403, 405, 422, 429, 500, 503)
_CHANGES = (400, 408, 409, 413, 415)


def document() -> dict[str, Any]:
    """The OpenAPI document as JSON values."""
    kinds: list[Any] = [answers.Failure, *(route.answers for route in ROUTES)]
    kinds += [route.given for route in ROUTES if route.method != "GET"]
    _, components = msgspec.json.schema_components(kinds, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lumeproxy admin API", "version": __version__, "description": _ABOUT},
        "servers": [{"url": PREFIX}],
        "security": [{"admin_key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"admin_key": {"type": "http", "scheme": "bearer", "bearerFormat": "lume_admin_…"}},
        },
    }


def statuses(route: Route) -> tuple[int, ...]:
    """Which refusals a route may answer."""
    named = (404,) if route.names or "account" in route.given.__struct_fields__ else ()
    return tuple(sorted({*_ALWAYS, *named, *(_CHANGES if route.method != "GET" else ())}))


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.names
    ]
    shown: dict[str, Any] = {
        "operationId": route.operation.replace(".", "_"),
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "description": "Needs an admin key that may change things." if route.who is Who.CHANGE else "Any admin key.",
    }
    if route.method == "GET":
        parameters += _query(route)
    else:
        body = {"application/json": {"schema": {"$ref": REF.format(name=route.given.__name__)}}}
        shown["requestBody"] = {"required": _needs_body(route), "content": body}
    if route.repeatable:
        schema = {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_CHARS, "pattern": "^[!-~]+$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema})
    shown["parameters"] = parameters
    good = {"application/json": {"schema": {"$ref": REF.format(name=route.answers.__name__)}}}
    bad = {"application/json": {"schema": {"$ref": REF.format(name=answers.Failure.__name__)}}}
    shown["responses"] = {str(route.status): {"description": route.summary, "content": good}}
    for status in statuses(route):
        shown["responses"][str(status)] = {"description": _WHY[status], "content": bad}
    return shown


def _needs_body(route: Route) -> bool:
    return any(one.required for one in msgspec.structs.fields(route.given))


def _query(route: Route) -> list[dict[str, Any]]:
    """The parameters of a query: its fields, where null can't be given but by leaving one out."""
    schema = msgspec.json.schema(route.given)["$defs"][route.given.__name__]
    found = []
    for name, field in schema["properties"].items():
        chosen = [one for one in field.get("anyOf", [field]) if one != {"type": "null"}]
        (plain,) = chosen
        plain = {key: value for key, value in {**plain, "default": field.get("default")}.items() if value is not None}
        found.append({"name": name, "in": "query", "required": name in schema["required"], "schema": plain})
    return found


# --- for people --------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; text-transform: capitalize; }
h3 { font: 600 .95rem ui-monospace, monospace; margin: 1.75rem 0 .25rem; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 3.6rem; color: #2563a8; } p { margin: .25rem 0 .5rem; }
code, pre { font: .875rem ui-monospace, monospace; } pre { overflow-x: auto; padding: .75rem; border: 1px solid #8885; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; border-top: 1px solid #8884; }
th { font-weight: normal; width: 15rem; font-family: ui-monospace, monospace; }
@media (prefers-color-scheme: dark) { h3 b { color: #7db4ee; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> str:
    """The document as a page that can be read without a program."""
    parts = [
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>lumeproxy admin API</title><style>{_STYLE}</style><body>",
        f"<h1>lumeproxy admin API</h1><p>{_prose(_ABOUT)}</p>",
        f"<p>For programs: <a href='{PREFIX}/openapi.json'>openapi.json</a> (OpenAPI 3.1).</p>",
        '<pre>curl -H "Authorization: Bearer $ADMIN_KEY" http://127.0.0.1:8787/api/v1/accounts</pre>',
    ]
    tag = ""
    for route in ROUTES:
        if route.path.split("/")[1] != tag:
            tag = route.path.split("/")[1]
            parts.append(f"<h2>{html.escape(tag)}</h2>")
        parts.append(_shown(route))
    return "\n".join([*parts, "</body></html>\n"])


def _shown(route: Route) -> str:
    note = "" if route.who is Who.READ else " Takes a key that may change things."
    note += " Takes an <code>Idempotency-Key</code>." if route.repeatable else ""
    rows = "".join(
        f"<tr><th>{html.escape(one.name)}<td>{html.escape(_told(one))}" for one in msgspec.structs.fields(route.given)
    )
    table = f"<table>{rows}</table>" if rows else ""
    head = f"<h3><b>{route.method}</b> {html.escape(PREFIX + route.path)}</h3>"
    return f"{head}<p>{html.escape(route.summary)}.{note}</p>{table}"


def _told(field: msgspec.structs.FieldInfo) -> str:
    """What a field takes, in a few words."""
    schema = msgspec.json.schema(field.type)
    words = []
    for one in schema.get("anyOf", [schema]):
        limits = [f"at least {one['minimum']}"] if "minimum" in one else []
        limits += [f"at most {one['maximum']}"] if "maximum" in one else []
        limits += [f"at most {one['maxLength']} characters"] if "maxLength" in one else []
        kind = ", ".join(map(str, one["enum"])) if "enum" in one else str(one.get("type", ""))
        words.append(f"{kind} ({', '.join(limits)})" if limits else kind)
    return " or ".join(words) + ("; required" if field.required else "")


def _prose(text: str) -> str:
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
