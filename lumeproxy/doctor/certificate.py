"""Until when a TLS certificate is valid. Pure; reads just enough of X.509 (RFC 5280 section 4.1, DER of X.690), since the
standard library tells it of a peer's certificate only."""

from __future__ import annotations

import base64
import binascii
import datetime
import re

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_BEFORE_VALIDITY = 3  # serial number, signature algorithm, issuer
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def first_der(pem: str) -> bytes | None:
    """The first certificate of a PEM file, which is the server's own; None where there is none."""
    found = _PEM.search(pem)
    try:
        return None if found is None else base64.b64decode(found[1])
    except binascii.Error:
        return None


def validity_ms(der: bytes) -> tuple[int, int] | None:
    """From when to when a certificate is valid, in epoch milliseconds; None for what is no certificate."""
    try:
        _, certificate, _ = _element(der)
        _, signed, _ = _element(certificate)
        tag, _, rest = _element(signed)
        left = signed if tag != _VERSION else rest
        for _ in range(_BEFORE_VALIDITY):
            _, _, left = _element(left)
        tag, validity, _ = _element(left)
        if tag != _SEQUENCE:
            return None
        first_tag, first, left = _element(validity)
        last_tag, last, _ = _element(left)
        return _time_ms(first_tag, first), _time_ms(last_tag, last)
    except (IndexError, ValueError):
        return None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and content, and what follows it."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    if at + length > len(data):
        raise ValueError("it ends within an element")
    return tag, data[at : at + length], data[at + length :]


def _time_ms(tag: int, content: bytes) -> int:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return int(datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()) * 1000
