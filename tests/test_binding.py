"""Which addresses may be served on. What a whole configuration says of it is in test_settings."""

from __future__ import annotations

import pytest

from lumeproxy.binding import check_binding
from lumeproxy.errors import ConfigError
from lumeproxy.settings import Server


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(host):
    check_binding(Server(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_public_address_needs_tls_or_a_proxy_in_front(host, tmp_path):
    with pytest.raises(ConfigError, match="keys would travel in clear"):
        check_binding(Server(host=host))

    check_binding(Server(host=host, trusted_proxies=("10.0.0.0/8",)))
    check_binding(Server(host=host, tls_certificate=tmp_path / "c", tls_key=tmp_path / "k"))


def test_an_address_that_this_machine_does_not_have_is_said_to_be_none():
    with pytest.raises(ConfigError, match=r"'192\.0\.2\.1' is no address of this machine"):
        check_binding(Server(host="192.0.2.1"))


def test_a_certificate_without_its_key_is_refused_also_on_loopback(tmp_path):
    with pytest.raises(ConfigError, match="set both or neither"):
        check_binding(Server(tls_certificate=tmp_path / "c"))
