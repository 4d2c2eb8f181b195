"""`lumeproxy usage`: what was called and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lumeproxy.cli.export import write_list
from lumeproxy.cli.output import Since, amounts, count, dollars, emit_json, plural, short_count, table, when
from lumeproxy.cli.reach import Reach, data_options

# On a terminal; `--json` and `--limit` give more.
SHOWN_ROWS = 50


@click.command()
@click.argument("account", required=False)
@click.option("--since", type=Since(), metavar="START", help="From when on: 7d, 24h, 2026-11-24.")
@click.option(
    "--by",
    type=click.Choice(["model", "key", "day", "session", "upstream", "account"]),
    metavar="GROUP",
    help="Sum up by model, key, day, session, upstream or account.",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), metavar="N", help=f"Newest calls [{SHOWN_ROWS}; all with --json]."
)
@data_options
def usage(
    account: str | None,
    since: int | None,
    by: str | None,
    limit: int | None,
    data: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """List calls, newest first, or sum them up."""
    reach = Reach(data, config, as_json)
    nothing = "No calls yet." if since is None else "No calls in that time."
    if by is not None:
        sums = reach.run("usage.totals", by=by, account=account, since_ms=since)
        if reach.as_json:
            emit_json(sums)
        else:
            click.echo(_totals(by, sums) if sums else nothing)
        return
    if reach.as_json:
        write_list(reach, "usage.page", most=limit, account=account, since_ms=since)
        click.echo()
        return
    shown = limit or SHOWN_ROWS
    # One more than is shown tells whether there are more.
    records = reach.run("usage.list", account=account, since_ms=since, limit=shown + 1)
    if not records:
        click.echo(nothing)
    else:
        click.echo(_records(records[:shown], of_one=account is not None, more=len(records) > shown))


def _records(records: list[dict[str, Any]], *, of_one: bool, more: bool) -> str:
    """A line a call; counts from a million on are shortened, `--json` has them all."""
    columns: tuple[str, ...] = ("time", "account", "model", "ending", "input", "cached", "written", "output", "cost")
    costs = amounts([r["cost_nanousd"] for r in records])
    rows: list[tuple[str, ...]] = [
        (
            when(r["time_ms"])[5:],
            r["account"],
            r["model"],
            r["ending"],
            short_count(r["input_tokens"]),
            short_count(r["cache_read_tokens"]),
            short_count(r["cache_write_5m_tokens"] + r["cache_write_1h_tokens"]),
            short_count(r["output_tokens"]),
            ("~" if r["estimated"] else "") + cost,
        )
        for r, cost in zip(records, costs, strict=True)
    ]
    if of_one:
        columns, rows = _without(columns, 1), [_without(row, 1) for row in rows]
    shown = table(columns, rows, right=columns[-5:], flexible=("account", "model") if not of_one else ("model",))
    total = f"{plural(len(records), 'call')}, {dollars(sum(r['cost_nanousd'] for r in records))}"
    notes = ["There are older ones: see --limit and --since." if more else ""]
    notes.append("~ is estimated." if any(r["estimated"] for r in records) else "")
    return "\n\n".join([shown, " ".join([total + ".", *filter(None, notes)])])


def _without(cells: tuple[str, ...], index: int) -> tuple[str, ...]:
    return cells[:index] + cells[index + 1 :]


def _totals(by: str, sums: list[dict[str, Any]]) -> str:
    name = "day (UTC)" if by == "day" else by
    columns = (name, "calls", "input", "cached", "written", "output", "cost")
    costs = amounts([s["cost_nanousd"] for s in sums])
    rows: list[tuple[str, ...]] = [
        (
            str(s[by]) or "-",
            count(s["calls"]),
            count(s["input_tokens"]),
            count(s["cache_read_tokens"]),
            count(s["cache_write_5m_tokens"] + s["cache_write_1h_tokens"]),
            count(s["output_tokens"]),
            cost,
        )
        for s, cost in zip(sums, costs, strict=True)
    ]
    calls, total = sum(s["calls"] for s in sums), sum(s["cost_nanousd"] for s in sums)
    return table(columns, rows, right=columns[1:], flexible=(name,)) + f"\n\n{plural(calls, 'call')}, {dollars(total)}."
