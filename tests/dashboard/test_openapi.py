"""The document says what the table says, completely, and the page is plain."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from lumeproxy.dashboard import openapi
from lumeproxy.dashboard.routes import ROUTES, Route

DOCUMENT = json.loads(msgspec.json.encode(openapi.document()))


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def test_every_route_is_in_it_and_no_other():
    assert sorted((path, method) for path, methods in DOCUMENT["paths"].items() for method in methods) == sorted(
        (route.path, route.method.lower()) for route in ROUTES
    )
    assert DOCUMENT["servers"] == [{"url": "/api/v1"}]
    assert DOCUMENT["security"] == [{"admin_key": []}]


def test_every_reference_leads_somewhere():
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)):
        assert name in DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_routes_arguments_and_answers_are_described(route: Route):
    shown = operation(route)
    fields = {field.name: field.required for field in msgspec.structs.fields(route.given)}
    places = {(one["name"], one["in"]): one["required"] for one in shown["parameters"]}

    assert {name for name, place in places if place == "path"} == set(route.names)
    if route.method == "GET":
        assert {name: needed for (name, place), needed in places.items() if place == "query"} == fields
        assert "requestBody" not in shown
    else:
        schema = resolved(shown["requestBody"]["content"]["application/json"]["schema"])
        assert set(schema["properties"]) == set(fields)
        assert set(schema["required"]) == {name for name, needed in fields.items() if needed}
        assert schema["additionalProperties"] is False
        assert shown["requestBody"]["required"] == any(fields.values())
    assert (("Idempotency-Key", "header") in places) == route.repeatable
    good = resolved(shown["responses"][str(route.status)]["content"]["application/json"]["schema"])
    assert set(good["required"]) == set(good["properties"]) == {f.name for f in msgspec.structs.fields(route.answers)}
    assert {int(status) for status in shown["responses"]} == {route.status, *openapi.statuses(route)}


def test_the_page_has_every_route_and_nothing_from_elsewhere():
    page = openapi.page()

    for route in ROUTES:
        assert f"<b>{route.method}</b> /api/v1{route.path}</h3>" in page
    assert re.findall(r"(?:href|src)=['\"]?([^'\" >]+)", page) == ["/api/v1/openapi.json"]
    assert "<script" not in page
    assert "style=" not in page
    assert "integer (at least 1, at most 1000)" in page
