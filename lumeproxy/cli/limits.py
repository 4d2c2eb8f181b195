"""Limits on the command line: budgets by period, calls a minute, calls at once; and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from lumeproxy.cli.output import Amount, count, dollars
from lumeproxy.core.limits import PERIODS

USUAL = "usual"  # takes a limit back to what the settings say
NONE = "none"  # takes a budget away
Command = TypeVar("Command", bound=Callable[..., Any])


class Rate(click.ParamType[Any]):
    """A number of calls, 0 for no limit; the word `usual` is None, which stands for what the settings say."""

    name = "calls"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None]:
        """The limit in a tuple, so that one that was given differs from none; a value that is no limit is a usage error."""
        if isinstance(value, tuple):
            return value
        if value == USUAL:
            return (None,)
        text = str(value).replace(",", "").replace("_", "")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.fail(f"it takes a number of calls, 0 for no limit, or {USUAL}.", param, ctx)
        return (int(text),)


class Threshold(click.ParamType[Any]):
    """Dollars, 0 for none; the word `usual` is None, which stands for what the settings say."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None]:
        """Nano-USD in a tuple, as Rate; what is no amount is a usage error."""
        if isinstance(value, tuple):
            return value
        return (None if value == USUAL else Amount().convert(value, param, ctx),)


class PeriodAmount(click.ParamType[tuple[str, int | None]]):
    """`day=5`: dollars for a period; `day=none` for no such limit."""

    name = "period=dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        """Period and nano-USD; anything else is a usage error."""
        if isinstance(value, tuple):
            return value
        period, equals, amount = str(value).partition("=")
        if period not in PERIODS or not equals:
            self.fail(f"write PERIOD=DOLLARS with one of {', '.join(PERIODS)}, such as day=5.", param, ctx)
        return period, None if amount.strip() == NONE else Amount().convert(amount, param, ctx)


def rate_options(command: Command) -> Command:
    """The two options of calls."""
    for name, text in (("--concurrent-calls", "Calls at once"), ("--calls-per-minute", "Calls a minute")):
        explained = f"{text}; 0: no limit, {USUAL}: as the settings say."
        command = click.option(name, type=Rate(), metavar="N", help=explained)(command)
    return command


def budget_option(command: Command) -> Command:
    """The option of budgets."""
    explained = f"What it may spend a {', '.join(PERIODS)}, as day=5; day={NONE}: no limit. Repeatable."
    return click.option("--budget", "budgets", type=PeriodAmount(), multiple=True, metavar="PERIOD=USD",
                        help=explained)(command)  # fmt: skip


def arguments(
    calls_per_minute: tuple[int | None] | None,
    concurrent_calls: tuple[int | None] | None,
    budgets: Iterable[tuple[str, int | None]] = (),
) -> dict[str, int | None]:
    """What was given, as an operation takes it; what was not given is left out and stays as it is."""
    given = {f"budget_{period}_nanousd": amount for period, amount in budgets}
    for name, limit in (("calls_per_minute", calls_per_minute), ("concurrent_calls", concurrent_calls)):
        if limit is not None:
            given[name] = limit[0]
    return given


def told(shown: dict[str, Any]) -> str:
    """The limits of a key or an account in a few words; "" where all are as usual."""
    words = []
    for period in PERIODS:
        amount = shown.get(f"budget_{period}_nanousd")
        if amount is not None:
            words.append(f"{dollars(amount)} {'in total' if period == 'total' else f'a {period}'}")
    left = shown.get("budget_left_nanousd")
    if words and left is not None:
        words[-1] += f" ({dollars(left)} left)"
    for name, unit in (("calls_per_minute", "calls a minute"), ("concurrent_calls", "calls at once")):
        if shown[name] is not None:
            words.append(f"{count(shown[name])} {unit}" if shown[name] else f"any number of {unit}")
    return ", ".join(words)
