"""The table of all pages, put together from one file a noun."""

from __future__ import annotations

from lumeproxy.dashboard import (
    pages_account,
    pages_accounts,
    pages_codes,
    pages_connect,
    pages_credit,
    pages_house,
    pages_keys,
    pages_overview,
    pages_sign_in,
    pages_usage,
)
from lumeproxy.dashboard.route import Route

ROUTES: tuple[Route, ...] = (
    *pages_sign_in.ROUTES,
    *pages_overview.ROUTES,
    *pages_usage.ROUTES,
    *pages_keys.ROUTES,
    *pages_connect.ROUTES,
    *pages_credit.ROUTES,
    *pages_account.ROUTES,
    *pages_house.ROUTES,
    *pages_accounts.ROUTES,
    *pages_codes.ROUTES,
)
