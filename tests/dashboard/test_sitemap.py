"""The table of all pages; its guards are walked in test_pages."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from lumeproxy import dashboard
from lumeproxy.dashboard.route import Access
from lumeproxy.dashboard.sitemap import ROUTES


def test_every_file_of_pages_is_in_the_table_and_no_path_twice():
    files = sorted(Path(dashboard.__file__).parent.glob("pages_*.py"))
    modules = [importlib.import_module(f"lumeproxy.dashboard.{file.stem}") for file in files]

    assert sum(len(module.ROUTES) for module in modules) == len(ROUTES)
    assert {route for module in modules for route in module.ROUTES} == set(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_open_pages_are_those_that_one_signs_in_by_and_the_texts():
    assert {route.path for route in ROUTES if route.access is Access.OPEN} == {
        "/sign-in", "/sign-in/link", "/register", "/terms", "/privacy",
    }  # fmt: skip
    for route in ROUTES:
        assert route.method in ("GET", "POST")
        assert inspect.iscoroutinefunction(route.serve)
        assert (route.access is Access.OPERATOR) == route.path.startswith("/operator")
