"""`lumeproxy usage`: what was called and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.output import count, dollars, emit_json, since_ms, table, when
from lumeproxy.cli.reach import Reach, data_options
from lumeproxy.clock import Clock

# On a terminal; `--json` and `--limit` give more.
SHOWN_ROWS = 50


@click.command()
@click.argument("account", required=False)
@click.option("--since", help="Start: 7d, 24h, 2026-11-24.")
@click.option("--by", type=click.Choice(["model", "key", "day", "session", "upstream", "account"]), help="Sum up by.")
@click.option("--limit", type=click.IntRange(1, 10_000), help=f"Newest records [{SHOWN_ROWS}; all with --json].")
@data_options
def usage(
    account: str | None,
    since: str | None,
    by: str | None,
    limit: int | None,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """List calls, newest first, or sum them up."""
    reach = Reach(data, config, as_json)
    start_ms = None if since is None else since_ms(since, Clock().now_ms())
    if by is not None:
        sums = reach.run("usage.totals", by=by, account=account, since_ms=start_ms)
        if reach.as_json:
            emit_json(sums)
        else:
            click.echo(_totals(by, sums) if sums else "No calls yet.")
        return
    if limit is None and not reach.as_json:
        limit = SHOWN_ROWS
    records = reach.run("usage.list", account=account, since_ms=start_ms, limit=limit)
    if reach.as_json:
        emit_json(records)
    else:
        click.echo(_records(records) if records else "No calls yet. The README shows a first one.")


def _records(records: list[dict[str, Any]]) -> str:
    columns = ("time", "account", "model", "ending", "input", "cached", "written", "output", "cost", "")
    rows = [
        (
            when(r["time_ms"])[5:],
            r["account"],
            r["model"],
            r["ending"],
            count(r["input_tokens"]),
            count(r["cache_read_tokens"]),
            count(r["cache_write_5m_tokens"] + r["cache_write_1h_tokens"]),
            count(r["output_tokens"]),
            dollars(r["cost_nanousd"]),
            "estimated" if r["estimated"] else "",
        )
        for r in records
    ]
    total = sum(r["cost_nanousd"] for r in records)
    return (
        table(columns, rows, right=("input", "cached", "written", "output", "cost"), flexible="model")
        + f"\n\n{len(records)} calls, {dollars(total)}"
    )


def _totals(by: str, sums: list[dict[str, Any]]) -> str:
    columns = (by, "calls", "input", "cached", "written", "output", "cost")
    rows = [
        (
            str(s[by]) or "-",
            count(s["calls"]),
            count(s["input_tokens"]),
            count(s["cache_read_tokens"]),
            count(s["cache_write_5m_tokens"] + s["cache_write_1h_tokens"]),
            count(s["output_tokens"]),
            dollars(s["cost_nanousd"]),
        )
        for s in sums
    ]
    calls, total = sum(s["calls"] for s in sums), sum(s["cost_nanousd"] for s in sums)
    return table(columns, rows, right=columns[1:], flexible=by) + f"\n\n{count(calls)} calls, {dollars(total)}"
