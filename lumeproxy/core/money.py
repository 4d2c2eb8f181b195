"""Money as integers: nano-USD (1e-9 $). Parsing, formatting, and the one rounding rule: up, once per call.

Prices arrive as Decimal and become integer rates in nano-USD per million tokens, which is exact for every list price
known (the finest is 1e-5 $ per million tokens). A float is refused, not converted.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANOUSD_PER_USD = 10**9
PPM = 10**6
MAX_USD = 10**6  # a slip of the keyboard, not a top-up
_DIGITS = 9


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up; b > 0."""
    return -(-a // b)


def parse_usd(value: str | int | Decimal) -> int:
    """Dollars as nano-USD, exactly.

    Raises ValueError with a sentence for what is no amount, negative, above MAX_USD, or finer than a nano-USD;
    TypeError for a float.
    """
    amount = _decimal(value)
    if amount < 0:
        raise ValueError("an amount can't be negative")
    if amount > MAX_USD:
        raise ValueError(f"an amount can't be above {MAX_USD:,} dollars")
    return _scaled(amount, "an amount")


def rate(dollars_per_mtok: str | int | Decimal) -> int:
    """Dollars per million tokens as nano-USD per million tokens, exactly. Raises as parse_usd."""
    amount = _decimal(dollars_per_mtok)
    if not 0 <= amount <= MAX_USD:
        raise ValueError("a price per million tokens lies between 0 and 1,000,000 dollars")
    return _scaled(amount, "a price")


def multiplier_ppm(factor: str | int | Decimal) -> int:
    """A factor as millionths, exactly. Raises ValueError for more than six decimals or a negative one."""
    amount = _decimal(factor)
    if amount < 0 or amount > 1000:
        raise ValueError("a multiplier lies between 0 and 1000")
    scaled = amount * PPM
    if scaled != scaled.to_integral_value():
        raise ValueError("a multiplier has at most six decimals")
    return int(scaled)


def format_usd(nanousd: int) -> str:
    """Dollars for a person: at least two decimals, six at most, more only where there would be nothing to see."""
    sign = "-" if nanousd < 0 else ""
    whole, part = divmod(abs(nanousd), NANOUSD_PER_USD)
    digits = f"{part:0{_DIGITS}}"
    if whole or part >= 1000 or not part:
        # Down to a millionth of a dollar; what is below is cut, for a balance must not look larger than it is.
        digits = digits[:6]
    return f"{sign}${whole:,}.{digits.rstrip('0').ljust(2, '0')}"


def _decimal(value: str | int | Decimal) -> Decimal:
    if isinstance(value, (float, bool)):
        raise TypeError("money is never a float")
    try:
        amount = Decimal(value.strip()) if isinstance(value, str) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{str(value)[:40]!r} is not an amount") from None
    if not amount.is_finite() or abs(amount.adjusted()) > 30:
        raise ValueError(f"{str(value)[:40]!r} is not an amount")
    return amount


def _scaled(amount: Decimal, what: str) -> int:
    scaled = amount * NANOUSD_PER_USD
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{what} has at most nine decimals")
    return int(scaled)
