"""What is said to a model, and by it, is found in no file and no log line; neither is a key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lumeproxy.store import backup
from tests.support import streams
from tests.support.proxy import Proxy
from tests.support.upstream import Connection, ScriptedUpstream

PROMPT, ANSWER, ERROR = "canary-in-the-prompt-7f3a", "canary-in-the-answer-91bc", "canary-in-an-error-44de"
FOREIGN, COOKIE, QUERY = "sk-ant-canary-key-55aa", "canary-cookie-13", "canary-query-17"
PROVIDER = "provider-secret"

WHOLE_RESPONSE = {"model": "gpt-test-1", "output": [{"content": [{"type": "output_text", "text": ANSWER}]}]}
CALLS = {
    "/v1/messages": ("claude-test-1", streams.anthropic([ANSWER] * 2), streams.anthropic_whole(text=ANSWER)),
    "/v1/responses": ("gpt-test-1", streams.responses([ANSWER] * 2), json.dumps(WHOLE_RESPONSE).encode()),
    "/v1/chat/completions": ("gpt-test-1", streams.chat([ANSWER] * 2), b'{"choices":[]}'),
}


async def _ask(lume: Proxy, path: str, *, stream: bool) -> None:
    model = CALLS[path][0]
    field = "input" if path == "/v1/responses" else "messages"
    body = {"model": model, "stream": stream, "max_tokens": 9, field: [{"role": "user", "content": PROMPT}]}
    headers = {"x-api-key": FOREIGN, "Cookie": COOKIE}
    async with lume.post(f"{path}?q={QUERY}", body, headers=headers) as response:
        try:
            await response.read()
        except Exception as error:  # a broken answer is part of the test
            assert type(error).__name__ == "ClientPayloadError"


def _scripts(path: str) -> list[tuple[bool, object]]:
    """Ways in which an upstream answers: streamed, whole, with errors, broken off."""
    _, events, whole = CALLS[path]
    fault = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": f"{ERROR}: {PROMPT}"}})

    async def broken(connection: Connection) -> None:
        await connection.stream_head()
        await connection.chunk(b"".join(events[: len(events) // 2]))
        connection.abort()

    async def garbage(connection: Connection) -> None:
        await connection.stream([b"data: {" + ANSWER.encode() + b"\n\n", *events])

    return [
        (True, lambda c: c.stream(events)),
        (False, lambda c: c.reply(whole)),
        (False, lambda c: c.reply(fault.encode(), 400)),
        (True, lambda c: c.reply(fault.encode(), 413)),
        (False, lambda c: c.reply(b"<html>" + PROMPT.encode(), 418, {"content-type": "text/html"})),
        (True, broken),
        (True, garbage),
    ]


async def test_no_canary_is_found_in_any_file_or_log_line(
    lume: Proxy, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    for path in CALLS:
        for stream, script in _scripts(path):
            upstream.script = script  # type: ignore[assignment]
            await _ask(lume, path, stream=stream)
    # Refused before any upstream: malformed JSON, an unknown model, no key of ours.
    for body in (b'{"model": "' + PROMPT.encode(), json.dumps({"model": "nobody", "x": PROMPT}).encode()):
        async with lume.post("/v1/messages", body) as response:
            assert response.status in (400, 404)
    async with lume.session.post(lume.url + "/v1/messages", headers={"x-api-key": FOREIGN}, data=PROMPT) as response:
        assert response.status == 401
        assert FOREIGN not in await response.text()
    records = await lume.records()
    assert len(records) == sum(len(_scripts(path)) for path in CALLS)
    await lume.server.database.outside(backup.backup, str(tmp_path / "data" / "copy.db"))

    searched = {file.name: file.read_bytes() for file in (tmp_path / "data").iterdir() if file.is_file()}
    searched["log"] = lume.log.getvalue().encode()
    assert {"lumeproxy.db", "lumeproxy.db-wal", "copy.db", "log"} <= searched.keys()
    assert records[0]["call_id"].encode() in searched["lumeproxy.db-wal"] + searched["lumeproxy.db"]
    for canary in (PROMPT, ANSWER, ERROR, FOREIGN, COOKIE, QUERY, PROVIDER, lume.key):
        for name, content in searched.items():
            assert canary.encode() not in content, (canary, name)


@pytest.mark.parametrize("bad", ["Bearer {}\x01", "Bearer {}" + "x" * 40_000])
async def test_a_malformed_request_does_not_give_its_key_away(lume: Proxy, bad: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", lume.server.port)
    writer.write(
        f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bad.format(lume.key)}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()

    assert answer.split(b" ")[1] in (b"400", b"431")
    assert lume.key.encode() not in answer
    assert lume.key not in lume.log.getvalue()
