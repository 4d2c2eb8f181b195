"""The request body: read within its limits, and decoded for our own reading only.

What goes upstream are the bytes as they came. Must not know dialects. Content codings: RFC 9110 section 8.4 (2022-06),
zstd RFC 8878 (2021-02).
"""

from __future__ import annotations

import asyncio
import sys
import zlib

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from lumeproxy.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


async def read_body(request: web.BaseRequest, *, limit_bytes: int, idle_ms: int) -> bytes:
    """The body as sent, at most `limit_bytes`, with at most `idle_ms` between two pieces of it.

    Raises BodyTooLarge before anything is buffered when Content-Length says so, else at the limit; BodyTimeout;
    InvalidRequest for broken framing; ClientGone.
    """
    announced = request.content_length
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    content = request.content
    pieces: list[bytes] = []
    size = 0
    try:
        while not content.at_eof():
            async with asyncio.timeout(idle_ms / 1000):
                piece = await content.readany()
            size += len(piece)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            pieces.append(piece)
    except TimeoutError:
        raise BodyTimeout(f"The rest of the request body did not arrive within {idle_ms // 1000} s.") from None
    except (ConnectionError, ClientError):
        raise ClientGone from None
    except HttpProcessingError:
        raise InvalidRequest("The request body's framing is broken.") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def decoded(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """The body without its content codings, the same object when there are none.

    Raises UnsupportedEncoding, InvalidRequest for bytes that are not what the header says, BodyTooLarge as soon as the
    output passes `limit_bytes` (a bomb is not unpacked).
    """
    for coding in reversed([c.strip().lower() for c in content_encoding.split(",")]):
        if coding in ("", "identity"):
            continue
        try:
            if coding in ("gzip", "x-gzip"):
                body = _inflated(body, 31, limit_bytes)
            elif coding == "deflate":
                body = _inflated(body, 15, limit_bytes)
            elif coding == "zstd":
                body = _unzstd(body, limit_bytes)
            else:
                raise UnsupportedEncoding(
                    "This content-encoding is not supported; send gzip, deflate, zstd or an uncoded body."
                )
        except (zlib.error, zstd.ZstdError, EOFError):
            raise InvalidRequest("The request body is not what its content-encoding says.") from None
    return body


def _inflated(body: bytes, window_bits: int, limit_bytes: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    out = inflater.decompress(body, limit_bytes + 1)
    if len(out) > limit_bytes:
        raise _too_large(limit_bytes)
    if not inflater.eof:
        raise EOFError
    return out


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    decoder = zstd.ZstdDecompressor()
    out = decoder.decompress(body, limit_bytes + 1)
    if len(out) > limit_bytes:
        raise _too_large(limit_bytes)
    if not decoder.eof:
        raise EOFError
    return out


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than this proxy takes ({limit_bytes // (1024 * 1024)} MiB).")
