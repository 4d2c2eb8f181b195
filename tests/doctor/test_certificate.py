"""A certificate's dates, read from DER."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest

from lumeproxy.doctor.certificate import first_der, validity_ms
from tests.support.certificate import write_certificate

DAY_MS = 86_400_000
BEGINS_MS = 1_790_000_000_000


@pytest.mark.parametrize("ends_ms", [BEGINS_MS + 90 * DAY_MS, 2_600_000_000_000], ids=["UTCTime", "GeneralizedTime"])
def test_the_dates_are_those_that_it_was_made_with(tmp_path: Path, ends_ms):
    file, _ = write_certificate(tmp_path, BEGINS_MS, ends_ms)

    der = first_der(file.read_text())

    assert der is not None
    assert der == ssl.PEM_cert_to_DER_cert(file.read_text().strip())
    assert validity_ms(der) == (BEGINS_MS, ends_ms)


def test_of_a_chain_the_first_is_the_servers_own(tmp_path: Path):
    own, _ = write_certificate(tmp_path, BEGINS_MS, BEGINS_MS + DAY_MS)
    above, _ = write_certificate(tmp_path, BEGINS_MS, BEGINS_MS + 9 * DAY_MS, name="above")

    assert first_der("a comment\n" + own.read_text() + above.read_text()) == first_der(own.read_text())


def test_a_certificate_without_a_version_is_one_too():
    time = b"\x17\x0d500101000000Z"  # the two digits 50 to 99 are of the last century
    inside = b"\x02\x01\x01" + b"\x30\x00" * 2 + b"\x30\x1e" + time * 2
    signed = bytes([0x30, len(inside)]) + inside
    der = bytes([0x30, len(signed)]) + signed

    assert validity_ms(der) == (-631_152_000_000, -631_152_000_000)


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"]
)
def test_what_holds_no_certificate_gives_none(text):
    assert first_der(text) in (None, b"")


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 10, 40, 60, 90, 110, 120])
def test_a_certificate_that_is_cut_or_spoilt_has_no_dates(tmp_path: Path, cut):
    file, _ = write_certificate(tmp_path, BEGINS_MS, BEGINS_MS + DAY_MS)
    der = first_der(file.read_text())

    assert der is not None
    assert validity_ms(der[:cut]) is None
    assert validity_ms(b"\x00" * cut) is None
    assert validity_ms(base64.b64encode(der)) is None


@pytest.mark.parametrize("time", [b"\x17\x0d509901000000Z", b"\x17\x01\xff", b"\x04\x0d500101000000Z"])
def test_what_is_no_time_is_told_as_none(time):
    inside = b"\x02\x01\x01" + b"\x30\x00" * 2 + bytes([0x30, 2 * len(time)]) + time * 2
    signed = bytes([0x30, len(inside)]) + inside

    assert validity_ms(bytes([0x30, len(signed)]) + signed) is None
