"""Routes: first match wins; usual models without any."""

from __future__ import annotations

from lumeproxy.core.routing import REMEMBERED_MODELS, Route, RoutingTable, default_routes


def test_the_first_route_that_matches_wins():
    table = RoutingTable([Route("claude-opus-*", ("a",)), Route("claude-*", ("b",), "other")])

    assert table.find("claude-opus-5").upstreams == ("a",)
    assert table.find("claude-haiku").upstream_model == "other"
    assert table.find("gpt-5") is None
    assert table.find("gpt-5") is None


def test_the_memory_of_asked_names_is_bounded():
    table = RoutingTable([Route("*", ("a",))])
    for number in range(REMEMBERED_MODELS * 2):
        assert table.find(f"m{number}") is not None

    assert len(table._found) == REMEMBERED_MODELS


def test_each_kind_has_its_usual_models_and_upstreams_of_one_kind_are_tried_in_order():
    routes = default_routes([("one", "anthropic"), ("two", "anthropic"), ("echo", "echo")])

    assert Route("claude-*", ("one", "two")) in routes
    assert Route("claude-echo", ("echo",)) in routes
    assert not any(route.pattern == "gpt-*" for route in routes)
