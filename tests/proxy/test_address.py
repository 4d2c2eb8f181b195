"""The client's address: the peer's own, or what a trusted proxy says of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lumeproxy.proxy.address import Addresses
from tests.support import streams
from tests.support.proxy import Proxy, proxy
from tests.support.upstream import ScriptedUpstream

ASK = {"model": "claude-test-1", "max_tokens": 5, "messages": []}
TRUSTED = ("10.0.0.0/8", "192.0.2.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        # The peer is no proxy of ours: what it says of others is not believed.
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["127.0.0.1"], "203.0.113.9"),
        ("11.0.0.1", ["8.8.8.8"], "11.0.0.1"),
        ("2001:db8::1", ["8.8.8.8"], "2001:db8::1"),
        (None, ["8.8.8.8"], ""),
        ("", ["8.8.8.8"], ""),
        # The right-most entry that is no proxy of ours counts: what stands left of it anybody can write.
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["8.8.8.8"], "8.8.8.8"),
        ("10.1.2.3", ["1.1.1.1, 8.8.8.8"], "8.8.8.8"),
        ("10.1.2.3", ["1.1.1.1", "8.8.8.8"], "8.8.8.8"),
        ("10.1.2.3", ["1.1.1.1,8.8.8.8 , 192.0.2.1,10.9.9.9"], "8.8.8.8"),
        ("192.0.2.1", ["2001:db8::2"], "2001:db8::2"),
        ("fd00::1", ["2001:db8::2, fd12::3"], "2001:db8::2"),
        ("10.1.2.3", ["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        # Where the chain holds something that is no address, it ends: the last proxy that is known counts.
        ("10.1.2.3", ["8.8.8.8, unknown"], "10.1.2.3"),
        ("10.1.2.3", ["8.8.8.8, , 10.0.0.8"], "10.0.0.8"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", ["8.8.8.8:1234"], "10.1.2.3"),
        ("10.1.2.3", ["[2001:db8::2]"], "10.1.2.3"),
        ("10.1.2.3", ["<script>"], "10.1.2.3"),
        ("10.1.2.3", ["fe80::1%" + "<script>" * 1000], "10.1.2.3"),
        ("10.1.2.3", ["0x7f.1, 010.1.1.1, 8.8.8"], "10.1.2.3"),
    ],
)
def test_the_right_most_address_that_is_no_proxy_of_ours_counts(peer, lines, expected):
    assert Addresses(TRUSTED).client(peer, lines) == expected


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "::1", "not an address"])
def test_without_trusted_proxies_the_peer_counts(peer):
    assert Addresses(()).client(peer, ["8.8.8.8"]) == peer


def test_a_network_may_be_written_with_an_address_of_it():
    assert Addresses(["10.1.2.3/8"]).client("10.200.0.1", ["8.8.8.8"]) == "8.8.8.8"


SPOOFED = {
    "X-Forwarded-For": "1.1.1.1, 8.8.8.8",
    "X-Real-IP": "9.9.9.9",
    "CF-Connecting-IP": "9.9.9.9",
    "True-Client-IP": "9.9.9.9",
    "Forwarded": "for=9.9.9.9",
}


async def test_a_client_cannot_choose_the_address_in_its_record(lume: Proxy, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())

    async with lume.post("/v1/messages", ASK, headers=SPOOFED) as response:
        assert response.status == 200

    assert [record["client_address"] for record in await lume.records()] == ["127.0.0.1"]
    assert [name for name in SPOOFED if upstream.received[0].header(name) is not None] == []


async def test_behind_a_trusted_proxy_the_record_has_the_clients_address(tmp_path: Path, upstream: ScriptedUpstream):
    upstream.script = lambda c: c.reply(streams.anthropic_whole())
    more = '[server]\ntrusted_proxies = ["127.0.0.1"]'
    routes = '[[routes]]\nmodel = "claude-test-*"\nupstreams = ["anthropic"]'
    async with proxy(tmp_path, {"anthropic": upstream}, more=more, routes=routes) as lume:
        for headers in (SPOOFED, {"X-Forwarded-For": "garbage"}):
            async with lume.post("/v1/messages", ASK, headers=headers) as response:
                assert response.status == 200
        addresses = [record["client_address"] for record in await lume.records()]

    assert addresses == ["8.8.8.8", "127.0.0.1"]
    assert upstream.received[0].header("x-forwarded-for") is None


def test_only_our_own_proxies_are_believed():
    addresses = Addresses(TRUSTED)

    assert [peer for peer in ("10.1.2.3", "192.0.2.1", "11.0.0.1", "", None, "x") if addresses.trusts(peer)] == [
        "10.1.2.3",
        "192.0.2.1",
    ]
