"""Upstreams that are switched off: remembered with the time, once."""

from __future__ import annotations

from lumeproxy.store import disabled


def test_what_is_switched_off_is_remembered_since_the_first_time(tx):
    assert disabled.names(tx) == {}
    assert disabled.add(tx, "b", 5) == {"b": 5}
    assert disabled.add(tx, "a", 6) == {"a": 6, "b": 5}
    assert disabled.add(tx, "b", 7) == {"a": 6, "b": 5}


def test_what_is_switched_on_again_is_forgotten(tx):
    disabled.add(tx, "a", 5)

    assert disabled.remove(tx, "a") == {}
    assert disabled.remove(tx, "a") == {}
    assert disabled.add(tx, "a", 9) == {"a": 9}
