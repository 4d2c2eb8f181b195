-- Accounts, keys, double entry, holds, usage records, prices. Times are epoch ms, money is nano-USD.

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('customer', 'house')),
    status TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'closed')),
    reason TEXT NOT NULL DEFAULT '',
    balance_nanousd INTEGER NOT NULL DEFAULT 0,
    held_nanousd INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    -- A customer's credit can't be overrun, whatever the code above does.
    CHECK (kind = 'house' OR (held_nanousd >= 0 AND held_nanousd <= balance_nanousd))
) STRICT;

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    last4 TEXT NOT NULL,
    name TEXT NOT NULL,
    models TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_account ON keys (account_id);

-- Only open holds have a row: a hold ends by its deletion, which can happen once.
CREATE TABLE holds (
    call_id TEXT PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
    opened_ms INTEGER NOT NULL,
    draft BLOB NOT NULL,
    checkpoint BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge', 'refund', 'adjustment')),
    from_account INTEGER NOT NULL REFERENCES accounts (id),
    to_account INTEGER NOT NULL REFERENCES accounts (id),
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
    call_id TEXT,
    idempotency_key TEXT,
    note TEXT NOT NULL DEFAULT '',
    CHECK (from_account <> to_account)
) STRICT;

CREATE UNIQUE INDEX entries_by_call ON entries (call_id, kind) WHERE call_id IS NOT NULL;
CREATE UNIQUE INDEX entries_by_key ON entries (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- A charge changes few pages, since each costs time in its commit: the house's own side of an entry is in no index.
CREATE INDEX entries_from ON entries (from_account, id) WHERE from_account > 3;
CREATE INDEX entries_to ON entries (to_account, id) WHERE to_account > 3;

CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE (ABORT, 'entries are append-only'); END;

CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE (ABORT, 'entries are append-only'); END;

CREATE TABLE prices (
    version TEXT PRIMARY KEY,
    price TEXT NOT NULL,
    first_used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE usage (
    call_id TEXT PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    key_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    dialect TEXT NOT NULL,
    model TEXT NOT NULL,
    model_served TEXT NOT NULL,
    upstream TEXT NOT NULL,
    status INTEGER,
    ending TEXT NOT NULL,
    input_tokens INTEGER NOT NULL CHECK (input_tokens >= 0),
    cache_read_tokens INTEGER NOT NULL CHECK (cache_read_tokens >= 0),
    cache_write_5m_tokens INTEGER NOT NULL CHECK (cache_write_5m_tokens >= 0),
    cache_write_1h_tokens INTEGER NOT NULL CHECK (cache_write_1h_tokens >= 0),
    output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
    reasoning_tokens INTEGER NOT NULL CHECK (reasoning_tokens >= 0),
    web_search_requests INTEGER NOT NULL CHECK (web_search_requests >= 0),
    cost_nanousd INTEGER NOT NULL CHECK (cost_nanousd >= 0),
    shortfall_nanousd INTEGER NOT NULL CHECK (shortfall_nanousd BETWEEN 0 AND cost_nanousd),
    price_version TEXT NOT NULL,
    multiplier_ppm INTEGER NOT NULL CHECK (multiplier_ppm >= 0),
    estimated INTEGER NOT NULL CHECK (estimated IN (0, 1)),
    settled_by TEXT NOT NULL,
    ttfb_ms INTEGER,
    duration_ms INTEGER,
    client_address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    upstream_request_id TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_text TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_account ON usage (account_id, time_ms);
CREATE INDEX usage_by_time ON usage (time_ms);

-- The other side of every entry: grants come from credit, charges go to revenue, shortfall pays what a true bill exceeds
-- hold and balance by.
INSERT INTO accounts (id, name, kind, status, created_ms, changed_ms) VALUES
    (1, 'house:credit', 'house', 'active', 0, 0),
    (2, 'house:revenue', 'house', 'active', 0, 0),
    (3, 'house:shortfall', 'house', 'active', 0, 0);
