"""Self-signed certificates for tests that need TLS, made on the spot: P-256 and DER by hand, no key is kept anywhere."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from pathlib import Path

# NIST P-256 (FIPS 186-4, D.1.2.3).
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int]
_EC_KEY, _P256 = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107")
_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_COMMON_NAME, _ALT_NAME = bytes.fromhex("0603550403"), bytes.fromhex("0603551d11")


def _add(a: _Point | None, b: _Point | None) -> _Point | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % _P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, _P) % _P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _P) % _P
    x = (slope * slope - a[0] - b[0]) % _P
    return x, (slope * (a[0] - x) - a[1]) % _P


def _times(number: int, point: _Point) -> _Point:
    total: _Point | None = None
    addend: _Point | None = point
    while number:
        if number & 1:
            total = _add(total, addend)
        addend = _add(addend, addend)
        number >>= 1
    assert total is not None
    return total


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    head = bytes([length]) if length < 128 else bytes([0x82]) + length.to_bytes(2, "big")
    return bytes([tag]) + head + content


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _time(at_ms: int) -> bytes:
    at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    if at.year < 2050:
        return _der(0x17, at.strftime("%y%m%d%H%M%SZ").encode())
    return _der(0x18, at.strftime("%Y%m%d%H%M%SZ").encode())


def _pem(name: str, der: bytes) -> str:
    return f"-----BEGIN {name}-----\n{base64.encodebytes(der).decode()}-----END {name}-----\n"


def write_certificate(folder: Path, begins_ms: int, ends_ms: int, *, name: str = "server") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is valid in that time, and its key: PEM files."""
    private = secrets.randbelow(_N - 1) + 1
    x, y = _times(private, _G)
    public = b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    algorithm = _der(0x30, _ECDSA_SHA256)
    who = _der(0x30, _der(0x31, _der(0x30, _COMMON_NAME, _der(0x0C, b"lumeproxy test"))))
    alt = _der(0x30, _ALT_NAME, _der(0x04, _der(0x30, _der(0x87, bytes([127, 0, 0, 1])))))
    signed = _der(
        0x30,
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(64)),
        algorithm,
        who,
        _der(0x30, _time(begins_ms), _time(ends_ms)),
        who,
        _der(0x30, _der(0x30, _EC_KEY, _P256), _der(0x03, b"\x00" + public)),
        _der(0xA3, _der(0x30, alt)),
    )
    digest = int.from_bytes(hashlib.sha256(signed).digest(), "big")
    nonce = secrets.randbelow(_N - 1) + 1
    r = _times(nonce, _G)[0] % _N
    s = pow(nonce, -1, _N) * (digest + r * private) % _N
    signature = _der(0x03, b"\x00" + _der(0x30, _integer(r), _integer(s)))
    key = _der(0x30, _integer(1), _der(0x04, private.to_bytes(32, "big")), _der(0xA0, _P256))
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_text(_pem("CERTIFICATE", _der(0x30, signed, algorithm, signature)))
    files[1].write_text(_pem("EC PRIVATE KEY", key))
    files[1].chmod(0o600)
    return files
