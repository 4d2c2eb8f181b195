-- Admin keys, answers of changes that may be repeated, notices, and what is left of records that were deleted.

CREATE TABLE admin_keys (
    id TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    last4 TEXT NOT NULL,
    name TEXT NOT NULL,
    may_change INTEGER NOT NULL CHECK (may_change IN (0, 1)),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

-- What a change with an Idempotency-Key came to, so that its repetition gets the same answer. A new key's text is not in it:
-- it is derived anew from the nonce and the caller's own admin key.
CREATE TABLE repeats (
    admin_key_id TEXT NOT NULL REFERENCES admin_keys (id),
    idempotency_key TEXT NOT NULL,
    arguments_sha256 BLOB NOT NULL CHECK (length(arguments_sha256) = 32),
    nonce BLOB NOT NULL,
    result TEXT NOT NULL,
    account TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (admin_key_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX repeats_by_time ON repeats (created_ms);
CREATE INDEX repeats_by_account ON repeats (account);

-- NULL means what is usual here; 0 never tells.
ALTER TABLE accounts ADD COLUMN low_balance_nanousd INTEGER CHECK (low_balance_nanousd >= 0);
CREATE TABLE usual (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    low_balance_nanousd INTEGER NOT NULL CHECK (low_balance_nanousd >= 0)
) STRICT;
INSERT INTO usual (id, low_balance_nanousd) VALUES (1, 0);

CREATE TABLE notices (
    id TEXT PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    balance_nanousd INTEGER NOT NULL,
    threshold_nanousd INTEGER NOT NULL,
    -- Set by whoever sees it first: SQLite has no clock that a test could set.
    time_ms INTEGER,
    outcome TEXT NOT NULL DEFAULT 'waiting' CHECK (outcome IN ('waiting', 'delivered', 'given_up')),
    tries INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX notices_waiting ON notices (next_ms) WHERE outcome = 'waiting';
CREATE INDEX notices_by_account ON notices (account_id, time_ms);

-- In the very transaction that takes a balance below its threshold, whoever makes it. Not again before it was above.
CREATE TRIGGER balance_falls_low AFTER UPDATE OF balance_nanousd ON accounts
WHEN NEW.balance_nanousd < OLD.balance_nanousd AND NEW.kind = 'customer'
    AND NEW.balance_nanousd < coalesce(NEW.low_balance_nanousd, (SELECT low_balance_nanousd FROM usual))
    AND OLD.balance_nanousd >= coalesce(NEW.low_balance_nanousd, (SELECT low_balance_nanousd FROM usual))
BEGIN
    INSERT INTO notices (id, account_id, balance_nanousd, threshold_nanousd) VALUES (
        'msg_' || lower(hex(randomblob(16))), NEW.id, NEW.balance_nanousd,
        coalesce(NEW.low_balance_nanousd, (SELECT low_balance_nanousd FROM usual)));
END;

-- Records of calls that began before this day (UTC, since 1970-01-01) may have been deleted. Their sums stay in `days`;
-- `folded` keeps what was deleted by account, so that an audit can tell that from records that are missing.
CREATE TABLE retention (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    folded_day INTEGER NOT NULL
) STRICT;
INSERT INTO retention (id, folded_day) VALUES (1, 0);

CREATE TABLE folded (
    account_id INTEGER PRIMARY KEY REFERENCES accounts (id),
    calls INTEGER NOT NULL,
    failed_calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    web_search_requests INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    shortfall_nanousd INTEGER NOT NULL,
    upstream_cost_nanousd INTEGER NOT NULL,
    charges INTEGER NOT NULL,
    shortfalls INTEGER NOT NULL
) STRICT;

-- What `days` has of days before `rollup.day`, summed over keys and over models: a year of everybody is read from a few
-- thousand rows. Written by the retention job; a late settlement of such a day takes `rollup.day` back to it.
CREATE TABLE model_sums (
    day INTEGER NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    upstream_cost_nanousd INTEGER NOT NULL,
    PRIMARY KEY (day, model, upstream)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_sums (
    day INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_5m_tokens INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    upstream_cost_nanousd INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, account_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    day INTEGER NOT NULL
) STRICT;
INSERT INTO rollup (id, day) VALUES (1, 0);

CREATE TRIGGER late_settlement_begins AFTER INSERT ON days
WHEN NEW.day < (SELECT day FROM rollup WHERE id = 1)
BEGIN UPDATE rollup SET day = NEW.day WHERE id = 1; END;

CREATE TRIGGER late_settlement_adds AFTER UPDATE ON days
WHEN NEW.day < (SELECT day FROM rollup WHERE id = 1)
BEGIN UPDATE rollup SET day = NEW.day WHERE id = 1; END;
