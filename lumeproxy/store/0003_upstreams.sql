-- What the provider bills for a call, which of its credentials served it, every try of it; upstreams that are switched off.

ALTER TABLE usage ADD COLUMN credential INTEGER NOT NULL DEFAULT 0 CHECK (credential >= 0);
ALTER TABLE usage ADD COLUMN upstream_cost_nanousd INTEGER NOT NULL DEFAULT 0 CHECK (upstream_cost_nanousd >= 0);
-- Empty in records of before, whose cost at the provider is not known.
ALTER TABLE usage ADD COLUMN upstream_price_version TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN attempts TEXT NOT NULL DEFAULT '';

CREATE TABLE disabled_upstreams (
    name TEXT PRIMARY KEY,
    disabled_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE days ADD COLUMN upstream_cost_nanousd INTEGER NOT NULL DEFAULT 0;
