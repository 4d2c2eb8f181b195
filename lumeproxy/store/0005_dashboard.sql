-- What the pages need beside the books: who an account is on them, who is signed in, codes, and what was done by whom.

-- One row for each account that has more than the defaults. `password` is argon2id in its PHC form.
CREATE TABLE people (
    account_id INTEGER PRIMARY KEY REFERENCES accounts (id),
    role TEXT NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    password TEXT,
    note TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE acceptances (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    version TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    PRIMARY KEY (account_id, version)
) STRICT, WITHOUT ROWID;

-- Only the SHA-256 of what a browser holds.
CREATE TABLE sessions (
    sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    via TEXT NOT NULL CHECK (via IN ('key', 'password', 'link')),
    key_id TEXT,
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    client_address TEXT NOT NULL,
    user_agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_account ON sessions (account_id, created_ms);

-- A link signs in once, and is gone.
CREATE TABLE links (
    sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Codes give credit, those of an invite batch to an account that is made by them. Only their SHA-256 is kept.
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('credit', 'invite')),
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    withdrawn_ms INTEGER
) STRICT;

CREATE TABLE codes (
    sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    batch_id INTEGER NOT NULL REFERENCES batches (id),
    last4 TEXT NOT NULL,
    redeemed_ms INTEGER,
    account_id INTEGER REFERENCES accounts (id),
    CHECK ((redeemed_ms IS NULL) = (account_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX codes_by_batch ON codes (batch_id);

-- What was done through an operation: by whom (no account: a command on the server itself), to what, what changed.
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    via TEXT NOT NULL,
    actor_id INTEGER REFERENCES accounts (id),
    operation TEXT NOT NULL,
    account_id INTEGER REFERENCES accounts (id),
    key_id TEXT,
    given TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL
) STRICT;

CREATE INDEX actions_by_account ON actions (account_id, id);

CREATE TRIGGER actions_are_not_changed BEFORE UPDATE ON actions
BEGIN SELECT RAISE (ABORT, 'actions are append-only'); END;

CREATE TRIGGER actions_are_not_deleted BEFORE DELETE ON actions
BEGIN SELECT RAISE (ABORT, 'actions are append-only'); END;
