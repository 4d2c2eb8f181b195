-- Limits of a key and an account, where NULL means what is usual here, and what was used by day.

ALTER TABLE accounts ADD COLUMN calls_per_minute INTEGER CHECK (calls_per_minute >= 0);
ALTER TABLE accounts ADD COLUMN concurrent_calls INTEGER CHECK (concurrent_calls >= 0);

ALTER TABLE keys ADD COLUMN calls_per_minute INTEGER CHECK (calls_per_minute >= 0);
ALTER TABLE keys ADD COLUMN concurrent_calls INTEGER CHECK (concurrent_calls >= 0);
ALTER TABLE keys ADD COLUMN day_nanousd INTEGER CHECK (day_nanousd >= 0);
ALTER TABLE keys ADD COLUMN week_nanousd INTEGER CHECK (week_nanousd >= 0);
ALTER TABLE keys ADD COLUMN month_nanousd INTEGER CHECK (month_nanousd >= 0);
ALTER TABLE keys ADD COLUMN total_nanousd INTEGER CHECK (total_nanousd >= 0);

-- Set for keys that have a budget only, so that the others pay for no index.
ALTER TABLE holds ADD COLUMN budget_key TEXT;
CREATE INDEX holds_by_budget ON holds (budget_key) WHERE budget_key IS NOT NULL;

-- The sum of all usage records by day (UTC, days since 1970-01-01, of the call's start), key, model and upstream. A failed
-- call is one that was refused, could not reach its upstream, or was cut by it.
CREATE TABLE days (
    key_id TEXT NOT NULL,
    day INTEGER NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
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
    PRIMARY KEY (key_id, day, model, upstream, account_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX days_by_account ON days (account_id, day);
CREATE INDEX days_by_day ON days (day);

INSERT INTO days
SELECT key_id, time_ms / 86400000, model, upstream, account_id, count(*),
    count(*) FILTER (WHERE ending IN ('refused', 'unreachable', 'cut_by_upstream')), sum(input_tokens),
    sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
    sum(reasoning_tokens), sum(web_search_requests), sum(cost_nanousd), sum(shortfall_nanousd)
FROM usage GROUP BY key_id, time_ms / 86400000, model, upstream, account_id;
