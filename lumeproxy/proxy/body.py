"""The request body: read within its limits, and decoded for our own reading only.

What goes upstream are the bytes as they came. Must not know dialects. Content codings: RFC 9110 section 8.4 (2022-06),
zstd RFC 8878 (2021-02).
"""

from __future__ import annotations

import asyncio
import sys
import zlib

from aiohttp import ClientError, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from lumeproxy.errors import BodyTimeout, BodyTooLarge, InvalidRequest, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


# Each coding is one more pass over up to the limit, in the event loop. Clients send one.
MOST_CODINGS = 2
# A body is decoded in steps of this size, so that a bomb is given up at the limit and not after it.
DECODE_STEP_BYTES = 262_144


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


async def read_body(request: web.BaseRequest, *, limit_bytes: int, idle_ms: int, bytes_per_s: int) -> bytes:
    """The body as sent, at most `limit_bytes`, with at most `idle_ms` between two pieces of it; one that takes longer than
    that comes at least at `bytes_per_s` on average.

    Raises BodyTooLarge before anything is buffered when Content-Length says so, else at the limit; BodyTimeout;
    InvalidRequest for broken framing; ClientGone.
    """
    announced = request.content_length
    if announced is not None and announced > limit_bytes:
        raise _too_large(limit_bytes)
    content, loop = request.content, asyncio.get_running_loop()
    idle_s, started = idle_ms / 1000, loop.time()
    body: bytes | bytearray = b""
    try:
        await _invite(request)
        while not content.at_eof():
            if content.is_eof():
                piece = content.read_nowait()
            else:
                async with asyncio.timeout(idle_s):
                    piece = await content.readany()
            if body:
                body = bytearray(body) if isinstance(body, bytes) else body
                body += piece
            else:
                body = piece  # most bodies come in one piece, which need not be copied
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
            if loop.time() - started > idle_s + len(body) / bytes_per_s:
                raise TimeoutError
    except TimeoutError:
        raise BodyTimeout(f"The rest of the request body did not arrive within {idle_ms // 1000} s.") from None
    except (ConnectionError, ClientError):
        raise ClientGone from None
    except HttpProcessingError:
        raise InvalidRequest("The request body's framing is broken.") from None
    return bytes(body)


async def _invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for it (`Expect: 100-continue`) to send the body. Only here, so that a request that is
    refused by its headers is refused before its body is sent."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes any output for the begun answer


def decoded(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """The body without its content codings, the same object when there are none.

    Raises UnsupportedEncoding, InvalidRequest for bytes that are not what the header says, BodyTooLarge as soon as the
    output passes `limit_bytes` (a bomb is not unpacked).
    """
    codings = [
        coding for part in content_encoding.split(",") if (coding := part.strip().lower()) not in ("", "identity")
    ]
    if len(codings) > MOST_CODINGS:
        raise UnsupportedEncoding("This body is coded too many times over; send it coded once, or not at all.")
    for coding in reversed(codings):
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
    out, rest = bytearray(), body
    while not inflater.eof:
        piece = inflater.decompress(rest, DECODE_STEP_BYTES)
        if not piece and not inflater.unconsumed_tail:
            break
        out += piece
        rest = inflater.unconsumed_tail
        if len(out) > limit_bytes:
            raise _too_large(limit_bytes)
    if not inflater.eof:
        raise EOFError
    _refuse_rest(inflater.unused_data)
    return bytes(out)


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    decoder = zstd.ZstdDecompressor()
    out = bytearray(decoder.decompress(body, DECODE_STEP_BYTES))
    while not decoder.eof and not decoder.needs_input and len(out) <= limit_bytes:
        out += decoder.decompress(b"", DECODE_STEP_BYTES)
    if len(out) > limit_bytes:
        raise _too_large(limit_bytes)
    if not decoder.eof:
        raise EOFError
    _refuse_rest(decoder.unused_data)
    return bytes(out)


def _refuse_rest(rest: bytes) -> None:
    """More members or frames are legal, but some readers stop at the first: we would meter another body than the
    upstream sees. No client sends them, so they are refused rather than joined."""
    if rest:
        raise InvalidRequest("The request body goes on after its compressed data; send one gzip member or zstd frame.")


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than this proxy takes ({limit_bytes // (1024 * 1024)} MiB).")
