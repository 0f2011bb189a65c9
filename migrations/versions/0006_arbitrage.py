"""Price gaps between stores: exchange rates, sellers, opportunities and their life."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE INDEX collected_deals_over ON collected_deals (ended_at) WHERE ended_at IS NOT NULL;

-- The same words in two thirds of the time: nearly every title is in normal form already, and to find that out costs little.
CREATE OR REPLACE FUNCTION keeper_fold(said text) RETURNS text LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(replace(replace(plain, 'ae', 'a'), 'oe', 'o'), '(^|[^aeiouyq])ue', '\\1u', 'g')
    FROM (SELECT left(said, 2000) AS title) cut, regexp_replace(
        lower(unaccent(CASE WHEN title IS NFKC NORMALIZED THEN title ELSE normalize(title, NFKC) END)), '[^[:alnum:]]+', ' ', 'g'
    ) plain
$$;

ALTER TABLE products
    ADD COLUMN is_hazardous boolean,
    ADD COLUMN is_heat_sensitive boolean,
    ADD COLUMN return_rate text CHECK (return_rate IN ('low', 'high')),
    ADD COLUMN coupon_minor integer CHECK (coupon_minor > 0),
    ADD COLUMN coupon_pct smallint CHECK (coupon_pct BETWEEN 1 AND 100),
    ADD COLUMN lightning_ends_at timestamptz,
    ADD COLUMN offer_count integer CHECK (offer_count >= 0),
    ADD COLUMN sales_rank_drops_30 integer CHECK (sales_rank_drops_30 >= 0),
    ADD COLUMN buy_box_is_amazon boolean,
    ADD COLUMN buy_box_is_fba boolean;
COMMENT ON COLUMN products.offer_count IS 'Sellers of new goods, as far as Keepa counts them';
COMMENT ON COLUMN products.sales_rank_drops_30 IS 'Times the rank fell within 30 days, which many read as sales';

-- Written by whoever records; read and deleted by the comparison. No key to wait for: a product changed twice is here twice.
CREATE TABLE product_changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asin text NOT NULL
);
COMMENT ON TABLE product_changes IS 'Products whose price or facts changed since they were last compared';

-- A product that a store does not have leaves no price; without this it would be asked for again and again.
CREATE TABLE scanned_products (
    asin text NOT NULL,
    marketplace text NOT NULL,
    scanned_at timestamptz NOT NULL,
    PRIMARY KEY (asin, marketplace)
);
COMMENT ON TABLE scanned_products IS 'When a product was last asked for in a store to be compared, whatever came of it';

ALTER TABLE finder_queries ADD COLUMN asins text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN finder_queries.asins IS 'What it found, the best sold first';

CREATE TABLE exchange_rates (
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$' AND currency <> 'EUR'),
    quoted_on date NOT NULL,
    per_euro numeric(16, 8) NOT NULL CHECK (per_euro > 0),
    source text NOT NULL,
    read_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (currency, quoted_on)
);

-- One for all: a profile that is removed and made anew never has the number of an earlier one.
CREATE SEQUENCE seller_profile_revisions;
CREATE TABLE seller_profiles (
    user_id bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    profile jsonb NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('seller_profile_revisions'),
    updated_at timestamptz NOT NULL DEFAULT keeper_now()
);

CREATE TABLE comparisons (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    is_full boolean NOT NULL,
    why text NOT NULL,
    began_at timestamptz NOT NULL,
    ended_at timestamptz,
    products integer NOT NULL DEFAULT 0,
    pairs bigint NOT NULL DEFAULT 0,
    opened integer NOT NULL DEFAULT 0,
    changed integer NOT NULL DEFAULT 0,
    closed integer NOT NULL DEFAULT 0,
    terms jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE comparisons IS 'Each pass over prices; its number names the state that answers are made of';
COMMENT ON COLUMN comparisons.terms IS 'What it reckoned with, as fingerprints: what is another next time is reckoned anew';

CREATE TABLE opportunities (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asin text NOT NULL,
    source_market text NOT NULL,
    target_market text NOT NULL,
    price_type text NOT NULL,
    source_minor integer NOT NULL CHECK (source_minor > 0),
    target_minor integer NOT NULL CHECK (target_minor > 0),
    source_currency text NOT NULL,
    target_currency text NOT NULL,
    source_checked_at timestamptz NOT NULL,
    target_checked_at timestamptz NOT NULL,
    margin_minor integer NOT NULL,
    margin_pct numeric(9, 2) NOT NULL,
    profit_minor integer,
    invested_minor integer,
    roi_pct numeric(9, 2),
    profit_margin_pct numeric(9, 2),
    unknown_parts text[] NOT NULL DEFAULT '{}',
    is_stale boolean NOT NULL DEFAULT false,
    reckoned_on date NOT NULL,
    category text,
    doubts text[] NOT NULL DEFAULT '{}',
    flags text[] NOT NULL DEFAULT '{}',
    score smallint NOT NULL DEFAULT 0 CHECK (score BETWEEN 0 AND 100),
    score_parts jsonb NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    best_margin_minor integer NOT NULL,
    best_profit_minor integer,
    best_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_why text,
    announced_at timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    CHECK (source_market <> target_market),
    CHECK ((closed_at IS NULL) = (closed_why IS NULL)),
    CHECK ((profit_minor IS NULL) = (cardinality(unknown_parts) > 0))
) WITH (fillfactor = 80);
COMMENT ON COLUMN opportunities.margin_minor IS 'The gross gap in euro cents, after exchange; margin_pct is of the purchase price';
COMMENT ON COLUMN opportunities.profit_minor IS 'Euro cents, for the operator''s default seller; null where a part is unknown';
COMMENT ON COLUMN opportunities.doubts IS 'Why both listings may not be the same article; empty: nothing speaks against it';
COMMENT ON COLUMN opportunities.last_seen_at IS 'When it was last reckoned and still there';
COMMENT ON COLUMN opportunities.announced_at IS 'When it was told to people; null: not yet, or not worth it';
CREATE UNIQUE INDEX opportunities_open ON opportunities (asin, source_market, target_market) WHERE closed_at IS NULL;
-- For each order a person asks for, the same article and the doubtful apart: what is doubtful has the highest margins, and most people ask
-- without it. The newest come by their number.
CREATE INDEX opportunities_by_margin ON opportunities (margin_pct DESC, id DESC) WHERE closed_at IS NULL AND cardinality(doubts) = 0;
CREATE INDEX opportunities_by_profit ON opportunities (coalesce(profit_minor, -2147483648) DESC, id DESC)
    WHERE closed_at IS NULL AND cardinality(doubts) = 0;
CREATE INDEX opportunities_by_roi ON opportunities (coalesce(roi_pct, -9999999) DESC, id DESC)
    WHERE closed_at IS NULL AND cardinality(doubts) = 0;
CREATE INDEX opportunities_by_score ON opportunities (score DESC, id DESC) WHERE closed_at IS NULL AND cardinality(doubts) = 0;
CREATE INDEX doubtful_by_margin ON opportunities (margin_pct DESC, id DESC) WHERE closed_at IS NULL AND cardinality(doubts) > 0;
CREATE INDEX doubtful_by_profit ON opportunities (coalesce(profit_minor, -2147483648) DESC, id DESC)
    WHERE closed_at IS NULL AND cardinality(doubts) > 0;
CREATE INDEX doubtful_by_roi ON opportunities (coalesce(roi_pct, -9999999) DESC, id DESC)
    WHERE closed_at IS NULL AND cardinality(doubts) > 0;
CREATE INDEX doubtful_by_score ON opportunities (score DESC, id DESC) WHERE closed_at IS NULL AND cardinality(doubts) > 0;
-- For a rare lane or category, which the orders above would look for in vain.
CREATE INDEX opportunities_of_lane ON opportunities (source_market, target_market, category) WHERE closed_at IS NULL;
CREATE INDEX opportunities_of_category ON opportunities (category) WHERE closed_at IS NULL;
-- For what is news: a gap has been best when it was opened, or later.
CREATE INDEX opportunities_by_best ON opportunities (best_at) WHERE closed_at IS NULL AND cardinality(doubts) = 0;
CREATE INDEX opportunities_over ON opportunities (closed_at DESC, id DESC) WHERE closed_at IS NOT NULL;
CREATE INDEX opportunities_of_product_over ON opportunities (asin, id) WHERE closed_at IS NOT NULL;
-- Those of the indices above are of a part of the table and not used by the planner.
CREATE STATISTICS opportunities_lanes (mcv) ON source_market, target_market, category FROM opportunities;
CREATE STATISTICS opportunities_doubts ON (cardinality(doubts)) FROM opportunities;
CREATE STATISTICS opportunities_profits ON (coalesce(profit_minor, -2147483648)) FROM opportunities;
CREATE STATISTICS opportunities_returns ON (coalesce(roi_pct, -9999999)) FROM opportunities;

CREATE TABLE opportunity_rules (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    least_roi_pct numeric(9, 2),
    least_profit_minor integer,
    least_margin_pct numeric(9, 2),
    sources text[] NOT NULL DEFAULT '{}',
    targets text[] NOT NULL DEFAULT '{}',
    categories text[] NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    changed_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (user_id, name)
);
COMMENT ON TABLE opportunity_rules IS 'Which opportunities a user wants to be told of: all conditions at once, within a list any one';
COMMENT ON COLUMN opportunity_rules.least_profit_minor IS 'Euro cents; null: no condition, as with the others';
COMMENT ON COLUMN opportunity_rules.changed_at IS 'What was there before and has not become better since is not news for it';

CREATE TABLE opportunity_alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    opportunity_id bigint NOT NULL REFERENCES opportunities ON DELETE CASCADE,
    rule_id bigint REFERENCES opportunity_rules ON DELETE SET NULL,
    content json NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (user_id, opportunity_id)
);
CREATE INDEX opportunity_alerts_of_rule ON opportunity_alerts (rule_id);
CREATE INDEX opportunity_alerts_of_opportunity ON opportunity_alerts (opportunity_id);
CREATE INDEX opportunity_alerts_of_hour ON opportunity_alerts (user_id, created_at);
COMMENT ON TABLE opportunity_alerts IS 'Opportunities that were told, each once to a user';

ALTER TABLE deliveries
    ADD COLUMN opportunity_alert_id bigint REFERENCES opportunity_alerts ON DELETE CASCADE,
    DROP CONSTRAINT deliveries_of_one,
    ADD CONSTRAINT deliveries_of_one CHECK (num_nonnulls(alert_id, report_id, deal_alert_id, opportunity_alert_id) = 1),
    ADD CONSTRAINT deliveries_of_opportunity_alert UNIQUE (opportunity_alert_id, channel_id);
UPDATE sinks SET kinds = '{alert,deal_alert,opportunity_alert,report}' WHERE name = 'notify';
"""

DOWNGRADE = """
DELETE FROM outbox o USING events e
WHERE e.recorded_on = o.event_on AND e.seq = o.event_seq AND e.kind IN ('arbitrage_alert', 'opportunity_alert');
UPDATE sinks SET kinds = '{alert,deal_alert,report}' WHERE name = 'notify';
DELETE FROM deliveries WHERE opportunity_alert_id IS NOT NULL;
ALTER TABLE deliveries
    DROP CONSTRAINT deliveries_of_one, DROP COLUMN opportunity_alert_id,
    ADD CONSTRAINT deliveries_of_one CHECK (num_nonnulls(alert_id, report_id, deal_alert_id) = 1);
DROP TABLE opportunity_alerts, opportunity_rules;
CREATE OR REPLACE FUNCTION keeper_fold(said text) RETURNS text LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(replace(replace(plain, 'ae', 'a'), 'oe', 'o'), '(^|[^aeiouyq])ue', '\\1u', 'g')
    FROM regexp_replace(lower(unaccent(normalize(left(said, 2000), NFKC))), '[^[:alnum:]]+', ' ', 'g') plain
$$;
DROP INDEX collected_deals_over;
ALTER TABLE finder_queries DROP COLUMN asins;
DROP TABLE opportunities, comparisons, seller_profiles, exchange_rates, product_changes, scanned_products;
DROP SEQUENCE seller_profile_revisions;
ALTER TABLE products
    DROP COLUMN is_hazardous, DROP COLUMN is_heat_sensitive, DROP COLUMN return_rate, DROP COLUMN coupon_minor, DROP COLUMN coupon_pct,
    DROP COLUMN lightning_ends_at, DROP COLUMN offer_count, DROP COLUMN sales_rank_drops_30, DROP COLUMN buy_box_is_amazon,
    DROP COLUMN buy_box_is_fba;
"""


def upgrade() -> None:
    """Add what the comparison of stores keeps."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take it away."""
    op.execute(DOWNGRADE)
