"""The error tree: statuses, codes, and the picture of it in the module's docstring."""

from __future__ import annotations

import re

import pytest

from lumeproxy import errors
from lumeproxy.errors import CallerError, ConfigError, LumeError, Missing, RateLimited, Refused, Unauthorized

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LumeError)]


@pytest.mark.parametrize(
    ("kind", "status", "code", "final"),
    [
        (errors.LumeError, 500, "internal_error", False),
        (errors.CallerError, 400, "invalid_request", True),
        (errors.InvalidRequest, 400, "invalid_request", True),
        (errors.Unauthorized, 401, "invalid_key", True),
        (errors.ForeignCredential, 401, "foreign_credential", True),
        (errors.OutOfCredit, 402, "out_of_credit", True),
        (errors.BudgetSpent, 402, "budget_spent", True),
        (errors.AccountSuspended, 403, "account_suspended", True),
        (errors.TermsNotAccepted, 403, "terms_not_accepted", True),
        (errors.Forbidden, 403, "forbidden", True),
        (errors.MethodNotAllowed, 405, "method_not_allowed", True),
        (errors.InvalidArguments, 422, "invalid_arguments", True),
        (errors.ModelNotFound, 404, "model_not_found", True),
        (errors.NotFound, 404, "not_found", True),
        (errors.BodyTimeout, 408, "body_timeout", False),
        (errors.BodyTooLarge, 413, "body_too_large", True),
        (errors.UnsupportedEncoding, 415, "unsupported_encoding", True),
        (errors.UpgradeRequired, 426, "upgrade_required", True),
        (errors.RateLimited, 429, "rate_limited", False),
        (errors.UpstreamError, 502, "upstream_error", True),
        (errors.CredentialRejected, 502, "upstream_credential_rejected", True),
        (errors.Unreachable, 503, "upstream_unreachable", False),
        (errors.StoreUnavailable, 503, "store_unavailable", False),
        (errors.Refused, 409, "refused", False),
        (errors.Missing, 404, "missing", False),
        (errors.ConfigError, 500, "config_error", True),
    ],
)
def test_each_error_has_its_status_its_code_and_says_whether_to_come_again(kind, status, code, final):
    assert (kind.status, kind.code, kind.final) == (status, code, final)


def test_every_error_is_in_the_table_above():
    (mark,) = test_each_error_has_its_status_its_code_and_says_whether_to_come_again.pytestmark

    assert {row[0] for row in mark.args[1]} == set(KINDS)


def test_the_picture_in_the_docstring_is_the_tree():
    shown = dict(re.findall(r"[├└]── (\w+) *(\d{3})?", errors.__doc__ or ""))

    kinds = {kind.__name__: kind for kind in KINDS}
    assert shown.keys() == kinds.keys() - {"LumeError", "Missing"}
    assert {name: status for name, status in shown.items() if status} == {
        name: str(kinds[name].status) for name, status in shown.items() if status
    }


def test_codes_are_words_and_tell_errors_apart():
    codes = [kind.code for kind in KINDS if kind is not CallerError]

    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_an_error_carries_its_sentence_and_the_true_wait():
    error = RateLimited("Slow down.", retry_after_s=7)

    assert (str(error), error.message, error.retry_after_s) == ("Slow down.", "Slow down.", 7)
    assert LumeError("x").retry_after_s is None


def test_what_is_caught_together_belongs_together():
    assert issubclass(errors.ForeignCredential, Unauthorized)
    assert issubclass(Missing, Refused)
    assert not issubclass(ConfigError, CallerError)
