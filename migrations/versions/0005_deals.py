"""Deals are collected, judged, filtered and reported."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE collected_deals
    ADD COLUMN source text NOT NULL DEFAULT 'posted' CHECK (source IN ('seeds', 'feed', 'posted')),
    ADD COLUMN query text,
    ADD COLUMN product_group text,
    ADD COLUMN layout text,
    ADD COLUMN median_90_minor integer,
    ADD COLUMN average_90_minor integer,
    ADD COLUMN below_median_pct numeric(5, 2),
    ADD COLUMN lowest_year_minor integer,
    ADD COLUMN lowest_ever_minor integer,
    ADD COLUMN highest_year_minor integer,
    ADD COLUMN is_year_low boolean,
    ADD COLUMN is_all_time_low boolean,
    ADD COLUMN is_list_price_fiction boolean,
    ADD COLUMN is_glitch boolean NOT NULL DEFAULT false,
    ADD COLUMN glitch_reason text,
    ADD COLUMN sightings integer NOT NULL DEFAULT 1 CHECK (sightings > 0),
    ADD COLUMN looked_at timestamptz,
    ADD COLUMN announced_at timestamptz,
    ADD COLUMN score_parts json,
    ADD COLUMN confidence double precision,
    ADD COLUMN judged_by text NOT NULL DEFAULT 'posted' CHECK (judged_by IN ('seeds', 'feed', 'posted'));
COMMENT ON COLUMN collected_deals.query IS 'The query of the feed, or the file of seeds, that found it first';
COMMENT ON COLUMN collected_deals.sightings IS 'Times it was seen with a later look of Keepa''s, the first included';
COMMENT ON COLUMN collected_deals.confidence IS 'How much of the score''s weight was known to the source that judged it';
COMMENT ON COLUMN collected_deals.announced_at IS 'Since when it may be told to people; null while it may be a glitch';
-- As the score and the price a deal is found by, these do not move with a sighting.
-- Many deals share a score or a rating, so that the order of equal ones is in the index, too.
CREATE INDEX collected_deals_best ON collected_deals (marketplace, coalesce(deal_score, -1000) DESC, asin, price_type, changed_at)
    WHERE ended_at IS NULL;
CREATE INDEX collected_deals_rated ON collected_deals (marketplace, coalesce(rating_tenths, -1000) DESC, asin, price_type, changed_at)
    WHERE ended_at IS NULL;
CREATE INDEX collected_deals_ranked ON collected_deals (marketplace, sales_rank) WHERE ended_at IS NULL;
CREATE INDEX collected_deals_layouts ON collected_deals (marketplace, layout) WHERE ended_at IS NULL AND layout IS NOT NULL;
CREATE INDEX products_of_brand ON products (marketplace, lower(brand));
CREATE INDEX collected_deals_announced ON collected_deals (announced_at) WHERE announced_at IS NOT NULL;
CREATE INDEX collected_deals_found ON collected_deals (first_seen_at);
CREATE INDEX collected_deals_running ON collected_deals (last_seen_at) WHERE ended_at IS NULL;

-- Without a foreign key: one is written for every row of every page, and the upkeep takes both away.
CREATE TABLE deal_sightings (
    asin text NOT NULL,
    marketplace text NOT NULL,
    price_type text NOT NULL,
    changed_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    query text,
    sales_rank integer,
    PRIMARY KEY (asin, marketplace, price_type, changed_at, seen_at)
);
CREATE INDEX deal_sightings_by_time ON deal_sightings USING brin (seen_at);
COMMENT ON TABLE deal_sightings IS 'Every run in which a deal was seen';

CREATE TABLE deal_collections (
    collected_at timestamptz NOT NULL,
    source text NOT NULL,
    query text,
    seen integer NOT NULL,
    kept integer NOT NULL,
    added integer NOT NULL,
    glitches integer NOT NULL,
    members integer
);
CREATE INDEX deal_collections_by_time ON deal_collections (collected_at);
COMMENT ON TABLE deal_collections IS 'What each page of deals came to: rows seen, kept, new, suspected glitches';
COMMENT ON COLUMN deal_collections.members IS 'Rows of those seen that are of a product group; null where nobody counted';

CREATE TABLE deal_queries (
    name text NOT NULL,
    price_type text NOT NULL,
    next_page smallint NOT NULL DEFAULT 0 CHECK (next_page >= 0),
    asked_at timestamptz,
    wanted_at timestamptz,
    range_days smallint,
    began_at timestamptz,
    full_at timestamptz,
    reached_at timestamptz,
    newest_at timestamptz,
    mark_at timestamptz,
    failure text,
    PRIMARY KEY (name, price_type)
);
COMMENT ON COLUMN deal_queries.next_page IS 'Where a pass that ran out of tokens goes on; 0 when it is through';
COMMENT ON COLUMN deal_queries.asked_at IS 'When a page of it was last asked for';
COMMENT ON COLUMN deal_queries.wanted_at IS 'When a run last meant to ask it, whether there were tokens or not';
COMMENT ON COLUMN deal_queries.range_days IS 'So old a change it tells of at most';
COMMENT ON COLUMN deal_queries.began_at IS 'When the present pass asked for its first page; empty where a row of it could not be read';
COMMENT ON COLUMN deal_queries.full_at IS 'When the last full pass did so, which looks for every deal it knows';
COMMENT ON COLUMN deal_queries.reached_at IS 'All places of later changes were read by the present pass; empty where it read the last page';
COMMENT ON COLUMN deal_queries.newest_at IS 'The latest change of price it has told of';
COMMENT ON COLUMN deal_queries.mark_at IS 'The same when a pass was last through: what is not later is nothing new';

CREATE TABLE deal_seeds (
    name text NOT NULL,
    marketplace text NOT NULL,
    asked_at timestamptz NOT NULL,
    PRIMARY KEY (name, marketplace)
);
COMMENT ON TABLE deal_seeds IS 'When the products of each file of seeds were last asked for in each store';

ALTER TABLE keepa_calls ADD COLUMN reserved_for text;
COMMENT ON COLUMN keepa_calls.reserved_for IS 'What its tokens were set aside for: its operation, or seeds for products of seed files';

CREATE TABLE bestseller_lists (
    marketplace text NOT NULL,
    category_id bigint NOT NULL,
    fetched_at timestamptz NOT NULL,
    asins text[] NOT NULL,
    PRIMARY KEY (marketplace, category_id)
);
COMMENT ON TABLE bestseller_lists IS 'The last list of each category, best first: 50 tokens each, so none is paid twice';

CREATE TABLE candidates (
    asin text NOT NULL CHECK (asin ~ '^[A-Z0-9]{10}$'),
    marketplace text NOT NULL,
    source text NOT NULL CHECK (source IN ('deals', 'bestsellers', 'finder')),
    query text,
    product_group text,
    place integer,
    found_at timestamptz NOT NULL,
    asked_at timestamptz,
    fetched_at timestamptz,
    PRIMARY KEY (asin, marketplace)
);
CREATE INDEX candidates_waiting ON candidates (marketplace, found_at) WHERE fetched_at IS NULL;
CREATE INDEX candidates_asked ON candidates (asked_at) WHERE asked_at IS NOT NULL;
COMMENT ON TABLE candidates IS 'Products that may join the catalog, from where, and whether they did';
COMMENT ON COLUMN candidates.product_group IS 'To which it must belong; null for any';
COMMENT ON COLUMN candidates.asked_at IS 'When a token was last set aside for it: what discovering spends is counted by it';
COMMENT ON COLUMN candidates.fetched_at IS 'When it was recorded, or found not to belong to its group or to be unknown to Keepa';

CREATE TABLE finder_queries (
    name text PRIMARY KEY,
    asked_at timestamptz NOT NULL,
    found integer NOT NULL
);
COMMENT ON TABLE finder_queries IS 'When the product finder was last asked for each file of the discovery';

ALTER TABLE users
    ADD COLUMN timezone text NOT NULL DEFAULT 'Europe/Berlin',
    ADD COLUMN report_hour smallint DEFAULT 7 CHECK (report_hour BETWEEN 0 AND 23),
    ADD COLUMN wants_empty_reports boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN users.report_hour IS 'Of the user''s own day; null for no report';

ALTER TABLE deal_filters ADD COLUMN is_instant boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN deal_filters.is_instant IS 'Whether its deals are told as they are found';

-- A report is one message a day with a part for each filter; nothing has written the older table.
DROP TABLE deal_reports;
CREATE TABLE deal_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL DEFAULT 'deals' CHECK (kind IN ('deals', 'operations')),
    report_date date NOT NULL,
    deal_count integer NOT NULL CHECK (deal_count >= 0),
    content json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    UNIQUE (user_id, kind, report_date)
);
CREATE INDEX deal_reports_of_user ON deal_reports (user_id, id);
COMMENT ON TABLE deal_reports IS 'Each report as it was sent: its text and HTML are made of the content alone, which never changes';
COMMENT ON COLUMN deal_reports.kind IS 'What it is of: a user''s deals, or the operations, for the administrators';
COMMENT ON COLUMN deal_reports.report_date IS 'The user''s own day; a row without deals was not sent, unless the user wants it';

CREATE TABLE deal_alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    filter_id bigint REFERENCES deal_filters ON DELETE SET NULL,
    asin text NOT NULL,
    marketplace text NOT NULL,
    price_type text NOT NULL,
    changed_at timestamptz NOT NULL,
    content json NOT NULL,
    is_held boolean NOT NULL DEFAULT false,
    report_id bigint REFERENCES deal_reports ON DELETE SET NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (user_id, asin, marketplace, price_type, changed_at)
);
CREATE INDEX deal_alerts_of_filter ON deal_alerts (filter_id);
CREATE INDEX deal_alerts_of_hour ON deal_alerts (user_id, created_at) WHERE NOT is_held;
CREATE INDEX deal_alerts_held ON deal_alerts (user_id) WHERE is_held AND report_id IS NULL;
COMMENT ON TABLE deal_alerts IS 'Deals of instant filters, each once to a user';
COMMENT ON COLUMN deal_alerts.filter_id IS 'Null where it was removed: what was told is remembered all the same';
COMMENT ON COLUMN deal_alerts.is_held IS 'Not told at once; `report_id` is the report that told it, or let it go because it was over';

ALTER TABLE deliveries
    ALTER COLUMN alert_id DROP NOT NULL,
    ADD COLUMN report_id bigint REFERENCES deal_reports ON DELETE CASCADE,
    ADD COLUMN deal_alert_id bigint REFERENCES deal_alerts ON DELETE CASCADE,
    ADD CONSTRAINT deliveries_of_one CHECK (num_nonnulls(alert_id, report_id, deal_alert_id) = 1),
    ADD CONSTRAINT deliveries_of_report UNIQUE (report_id, channel_id),
    ADD CONSTRAINT deliveries_of_deal_alert UNIQUE (deal_alert_id, channel_id);
UPDATE sinks SET kinds = '{alert,deal_alert,report}' WHERE name = 'notify';

-- A page of deals brings 150 products at once: each title is folded once, where it was folded four times.
CREATE OR REPLACE FUNCTION keep_added_texts() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    texts text[];
BEGIN
    WITH told AS MATERIALIZED (
        -- The feed says no brand, and a call costs more than what it does.
        SELECT asin, marketplace, keeper_fold(coalesce(title, '')) AS title,
            CASE WHEN brand IS NULL THEN '' ELSE keeper_fold(brand) END AS brand
        FROM added
    ), kept AS (
        INSERT INTO product_texts (asin, marketplace, words, folded)
        SELECT asin, marketplace,
            setweight(to_tsvector('keeper_german', title), 'A') || setweight(to_tsvector('keeper_german', brand), 'B'),
            rtrim(' ' || ltrim(rtrim(title) || ' ' || ltrim(brand)))
        FROM told
        ON CONFLICT (asin, marketplace) DO UPDATE SET words = excluded.words, folded = excluded.folded
        RETURNING folded
    )
    SELECT array_agg(folded) INTO texts FROM kept;
    PERFORM add_words(texts);
    RETURN NULL;
END $$;
"""

DOWNGRADE = """
CREATE OR REPLACE FUNCTION keep_added_texts() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO product_texts (asin, marketplace, words, folded)
    SELECT asin, marketplace, keeper_words(title, brand), keeper_folded(title, brand) FROM added
    ON CONFLICT (asin, marketplace) DO UPDATE SET words = excluded.words, folded = excluded.folded;
    PERFORM add_words(array_agg(keeper_folded(title, brand))) FROM added;
    RETURN NULL;
END $$;
DELETE FROM outbox o USING events e
WHERE o.sink = 'notify' AND e.recorded_on = o.event_on AND e.seq = o.event_seq AND e.kind IN ('report', 'deal_alert');
UPDATE sinks SET kinds = '{alert}' WHERE name = 'notify';
DELETE FROM deliveries WHERE alert_id IS NULL;
ALTER TABLE deliveries
    DROP CONSTRAINT deliveries_of_one, DROP CONSTRAINT deliveries_of_report, DROP CONSTRAINT deliveries_of_deal_alert,
    DROP COLUMN report_id, DROP COLUMN deal_alert_id, ALTER COLUMN alert_id SET NOT NULL;
DROP TABLE deal_alerts, deal_reports;
CREATE TABLE deal_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    filter_id bigint NOT NULL REFERENCES deal_filters ON DELETE CASCADE,
    report_date date NOT NULL,
    deal_count integer NOT NULL CHECK (deal_count >= 0),
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    UNIQUE (filter_id, report_date)
);
ALTER TABLE deal_filters DROP COLUMN is_instant;
ALTER TABLE users DROP COLUMN timezone, DROP COLUMN report_hour, DROP COLUMN wants_empty_reports;
ALTER TABLE keepa_calls DROP COLUMN reserved_for;
DROP TABLE finder_queries, candidates, bestseller_lists, deal_queries, deal_seeds, deal_collections, deal_sightings;
DROP INDEX collected_deals_best, collected_deals_rated, collected_deals_ranked, collected_deals_layouts, products_of_brand,
    collected_deals_announced, collected_deals_found, collected_deals_running;
ALTER TABLE collected_deals
    DROP COLUMN source, DROP COLUMN query, DROP COLUMN product_group, DROP COLUMN layout, DROP COLUMN median_90_minor,
    DROP COLUMN average_90_minor, DROP COLUMN below_median_pct, DROP COLUMN lowest_year_minor, DROP COLUMN lowest_ever_minor,
    DROP COLUMN highest_year_minor, DROP COLUMN is_year_low, DROP COLUMN is_all_time_low, DROP COLUMN is_list_price_fiction,
    DROP COLUMN is_glitch, DROP COLUMN glitch_reason, DROP COLUMN sightings, DROP COLUMN looked_at, DROP COLUMN announced_at,
    DROP COLUMN score_parts, DROP COLUMN confidence, DROP COLUMN judged_by;
"""


def upgrade() -> None:
    """Add what the collection, the filters and the reports keep."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take it away; filters stay, reports and what was told at once do not."""
    op.execute(DOWNGRADE)
