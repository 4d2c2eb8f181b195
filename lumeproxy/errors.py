"""Every error that a person or a client can see, as one tree.

Raise anywhere; a dialect gives an error its wire shape, the CLI its sentence. No wire shape here, and nothing secret:
a message may be logged and is shown to the caller.

    LumeError
    ├── CallerError            the call is at fault; ends it, costs nothing
    │   ├── Unauthorized       401  no, unknown, malformed, expired or revoked key
    │   │   └── ForeignCredential   a provider's own key or login token reached us
    │   ├── AccountSuspended   403
    │   │   └── TermsNotAccepted    the operator asks for it before the first call
    │   ├── Forbidden          403  a key that may not do this
    │   ├── OutOfCredit        402 (OpenAI dialects: 429, which Codex shows best)
    │   │   └── BudgetSpent         what the key may spend in a period, not what its account has
    │   ├── ModelNotFound      404  no route, not allowed for the key, or without a price
    │   ├── NotFound           404  no such path
    │   ├── MethodNotAllowed   405  a path that does not take this method
    │   ├── RateLimited        429  our own rate or concurrency limit; carries the true wait
    │   ├── BodyTooLarge       413
    │   ├── UnsupportedEncoding 415
    │   ├── BodyTimeout        408  the body did not arrive
    │   ├── UpgradeRequired    426  a WebSocket is not offered; Codex falls back to HTTP at once
    │   ├── InvalidArguments   422  of an operation: a field that is missing, unknown or beyond its limits
    │   └── InvalidRequest     400  bad JSON, missing model
    ├── UpstreamError          502  the provider's answer can't be passed on
    │   ├── Unreachable        503  no upstream could be reached
    │   └── CredentialRejected 502  the upstream refused the operator's own credential or balance
    ├── StoreUnavailable       503  the database cannot take the call's hold; nothing was sent upstream
    ├── Refused                an operation of the CLI or admin API that cannot be done (exit 1, HTTP 409 or 404)
    └── ConfigError            names the field and the mend (exit 2, start-up only)
"""

from __future__ import annotations


class LumeError(Exception):
    """Base of all errors with a sentence for a person.

    `status` is the HTTP status outside any dialect, `code` a stable word for logs and records, `final` says that a
    repeat of the same call cannot succeed (answers then carry `x-should-retry: false`), `retry_after_s` the true wait.
    Anything that is not a LumeError is a bug: it is answered 500 and logged with its traceback.
    """

    status = 500
    code = "internal_error"
    final = False

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class CallerError(LumeError):
    """The call is at fault; it ends here and costs nothing."""

    status = 400
    code = "invalid_request"
    final = True


class Unauthorized(CallerError):
    """No, unknown, malformed, expired or revoked key; the text is the same for the last four."""

    status = 401
    code = "invalid_key"


class ForeignCredential(Unauthorized):
    """A provider's own key or login token reached us; the text says what to set instead."""

    code = "foreign_credential"


class AccountSuspended(CallerError):
    """The account is suspended or closed by the operator."""

    status = 403
    code = "account_suspended"


class TermsNotAccepted(AccountSuspended):
    """The account has not accepted the operator's terms yet, or not those in force; the text says where it can."""

    code = "terms_not_accepted"


class Forbidden(CallerError):
    """The key is known and may not do this: one for calls where an admin key is due, or one that only reads."""

    status = 403
    code = "forbidden"


class OutOfCredit(CallerError):
    """The credit left does not cover the hold; amounts are nano-USD, the text names them in dollars."""

    status = 402
    code = "out_of_credit"


class BudgetSpent(OutOfCredit):
    """The key's budget of a day, a week, a month or in total does not cover the hold; the text says which."""

    code = "budget_spent"


class ModelNotFound(CallerError):
    """The model has no route, no price, or is not among the key's patterns."""

    status = 404
    code = "model_not_found"


class NotFound(CallerError):
    """There is nothing at this path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(CallerError):
    """There is something at this path, for other methods."""

    status = 405
    code = "method_not_allowed"


class RateLimited(CallerError):
    """Our own rate or concurrency limit; `retry_after_s` is the true wait."""

    status = 429
    code = "rate_limited"
    final = False


class BodyTooLarge(CallerError):
    """The request body is over `limits.body_bytes`, as sent or as decoded."""

    status = 413
    code = "body_too_large"


class UnsupportedEncoding(CallerError):
    """A content-encoding other than identity, gzip, deflate and zstd."""

    status = 415
    code = "unsupported_encoding"


class BodyTimeout(CallerError):
    """The rest of the request body did not arrive within `limits.body_idle_ms`."""

    status = 408
    code = "body_timeout"
    final = False


class UpgradeRequired(CallerError):
    """A WebSocket upgrade that is not offered here."""

    status = 426
    code = "upgrade_required"


class InvalidArguments(CallerError):
    """The arguments of an operation are not what it takes; the text names the field."""

    status = 422
    code = "invalid_arguments"


class InvalidRequest(CallerError):
    """Bad JSON, no model, or a field of the wrong type among the few that are read."""


class UpstreamError(LumeError):
    """The provider's side is at fault."""

    status = 502
    code = "upstream_error"
    final = True


class Unreachable(UpstreamError):
    """No upstream of the route could be reached before a byte was sent to the client."""

    status = 503
    code = "upstream_unreachable"
    final = False


class CredentialRejected(UpstreamError):
    """The upstream refused the operator's own credential or balance (401, 402, 403)."""

    status = 502
    code = "upstream_credential_rejected"


class StoreUnavailable(LumeError):
    """The database cannot take a write now; nothing was sent upstream."""

    status = 503
    code = "store_unavailable"


class Refused(LumeError):
    """An operation that cannot be done, such as a second account of one name; nothing was changed."""

    status = 409
    code = "refused"


class Missing(Refused):
    """The account, key or record that an operation names does not exist."""

    status = 404
    code = "missing"


class ConfigError(LumeError):
    """A setting is wrong; the message names the field and the mend. The process exits with 2."""

    code = "config_error"
    final = True
