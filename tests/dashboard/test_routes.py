"""The table of routes is sound: operations exist, names are among their arguments, no two routes are one."""

from __future__ import annotations

import msgspec
import pytest

from lumeproxy.dashboard.operations import READS, Operations
from lumeproxy.dashboard.routes import ROUTES, Route, Who, allowed


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_takes_what_its_operation_takes(route: Route, operations: Operations):
    takes = {field.name for field in msgspec.structs.fields(route.takes)}
    given = {field.name for field in msgspec.structs.fields(route.given)}

    assert operations._table[route.operation][0] is route.takes
    assert set(route.names) <= takes
    assert given == takes - set(route.names) - {"idempotency_key"}
    assert (route.who is Who.READ) == (route.operation in READS) == (route.method == "GET")
    assert route.repeatable == (route.status == 201)


def test_no_two_routes_are_one():
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert len({route.operation for route in ROUTES}) == len(ROUTES)


def test_a_path_is_matched_part_by_part():
    assert {name: values for name, (_, values) in allowed(["accounts", "a/b"]).items()} == {
        "GET": {"name": "a/b"},
        "PATCH": {"name": "a/b"},
    }
    for parts in (["accounts", ""], ["accounts", "a", "b"], [""], ["account"]):
        assert allowed(parts) == {}


def test_what_leaks_or_harms_is_in_no_route():
    operations = {route.operation for route in ROUTES}
    assert not operations & {"backup.run", "admin_key.create", "admin_key.list", "admin_key.revoke"}
