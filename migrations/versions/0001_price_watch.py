"""Users, watches, prices, alerts, events and the token ledger."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Business time (due times, history, alerts, the ledger's refill) is keeper_now(); plumbing (leases, tries, partitions of events)
# is the machine's clock. No foreign key on the tables that a check writes by the thousand: their rows are written by one verb only.
UPGRADE = """
CREATE TABLE installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    keepa_source text CHECK (keepa_source IN ('keepa', 'simulator')),
    clock_anchor_machine double precision NOT NULL DEFAULT 0,
    clock_anchor_business double precision NOT NULL DEFAULT 0,
    clock_speed double precision NOT NULL DEFAULT 1 CHECK (clock_speed BETWEEN 1 AND 10000),
    channel_key_fingerprint text,
    CHECK (
        coalesce(keepa_source, 'keepa') = 'simulator'
        OR (clock_speed = 1 AND clock_anchor_machine = 0 AND clock_anchor_business = 0)
    )
);
COMMENT ON TABLE installation IS 'One row: which Keepa this database holds, and how its business time runs';
INSERT INTO installation DEFAULT VALUES;

CREATE FUNCTION keeper_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT to_timestamp(
        clock_anchor_business + clock_speed * (extract(epoch FROM clock_timestamp())::double precision - clock_anchor_machine)
    ) FROM installation
$$;

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$'),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at timestamptz NOT NULL DEFAULT keeper_now()
);

CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    label text NOT NULL,
    key_hash bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    scope text NOT NULL CHECK (scope IN ('read', 'write', 'admin', 'feed')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_of_user ON api_keys (user_id);

CREATE TABLE channels (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    scheme text NOT NULL,
    shown text NOT NULL,
    url_encrypted text NOT NULL,
    key_fingerprint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    UNIQUE (user_id, name)
);
COMMENT ON COLUMN channels.shown IS 'The masked form of the URL, safe to show';

CREATE TABLE products (
    asin text NOT NULL CHECK (asin ~ '^[A-Z0-9]{10}$'),
    marketplace text NOT NULL,
    kind text NOT NULL,
    title text,
    brand text,
    manufacturer text,
    model text,
    color text,
    size text,
    binding text,
    image_url text,
    root_category_id bigint,
    category_ids bigint[],
    category_path text[],
    eans text[],
    upcs text[],
    parent_asin text,
    sales_rank integer,
    rating_tenths smallint,
    review_count integer,
    monthly_sold integer,
    availability text,
    referral_fee_pct double precision,
    fba_pick_pack_minor integer,
    package_height_mm integer,
    package_length_mm integer,
    package_width_mm integer,
    package_weight_g integer,
    package_quantity integer,
    unit_count integer,
    prime_eligible boolean,
    listed_at timestamptz,
    keepa_updated_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    checked_at timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (asin, marketplace)
) WITH (fillfactor = 80);
COMMENT ON COLUMN products.revision IS
    'Raised with every change of the row or of one of its prices; the sum over marketplaces is the version of the search document';

CREATE TABLE watched_products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    asin text NOT NULL CHECK (asin ~ '^[A-Z0-9]{10}$'),
    marketplace text NOT NULL,
    price_type text NOT NULL DEFAULT 'NEW',
    target_minor integer CHECK (target_minor > 0),
    currency text NOT NULL,
    interval_seconds integer NOT NULL DEFAULT 21600 CHECK (interval_seconds BETWEEN 60 AND 2592000),
    hysteresis_pct numeric(5, 2) NOT NULL DEFAULT 2 CHECK (hysteresis_pct BETWEEN 0 AND 100),
    is_active boolean NOT NULL DEFAULT true,
    is_armed boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    next_check_at timestamptz NOT NULL DEFAULT keeper_now(),
    last_checked_at timestamptz,
    last_failure text
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX watched_products_one_active ON watched_products (asin, marketplace, price_type, user_id) WHERE is_active;
CREATE INDEX watched_products_due ON watched_products (next_check_at)
    INCLUDE (asin, marketplace, price_type, last_checked_at, interval_seconds)
    WHERE is_active;
CREATE INDEX watched_products_short ON watched_products (interval_seconds, next_check_at) WHERE is_active AND interval_seconds < 300;
CREATE INDEX watched_products_of_user ON watched_products (user_id, id);

CREATE TABLE check_claims (
    asin text NOT NULL,
    marketplace text NOT NULL,
    batch_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (asin, marketplace)
);
CREATE INDEX check_claims_of_batch ON check_claims (batch_id);
COMMENT ON TABLE check_claims IS 'Products somebody is paying for right now; the machine''s clock ends a dead claim';

CREATE TABLE current_prices (
    asin text NOT NULL,
    marketplace text NOT NULL,
    price_type text NOT NULL,
    amount_minor integer CHECK (amount_minor > 0),
    currency text NOT NULL,
    observed_at timestamptz NOT NULL,
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (asin, marketplace, price_type)
) WITH (fillfactor = 70);
COMMENT ON COLUMN current_prices.amount_minor IS 'Null: seen, and there is no offer';

CREATE TABLE price_history (
    asin text NOT NULL,
    marketplace text NOT NULL,
    price_type text NOT NULL,
    observed_at timestamptz NOT NULL,
    amount_minor integer CHECK (amount_minor > 0),
    currency text NOT NULL,
    event_id uuid,
    event_version smallint,
    previous_minor integer CHECK (previous_minor > 0),
    target_minor integer CHECK (target_minor > 0),
    PRIMARY KEY (asin, marketplace, price_type, observed_at),
    CHECK ((event_id IS NULL) = (event_version IS NULL)),
    CHECK (event_id IS NOT NULL OR (previous_minor IS NULL AND target_minor IS NULL))
) PARTITION BY RANGE (observed_at);
CREATE TABLE price_history_default PARTITION OF price_history DEFAULT;
-- A month made later takes its rows from here under a lock; the key, which begins with the product, would mean a look at every row.
CREATE INDEX price_history_default_by_time ON price_history_default (observed_at);
COMMENT ON TABLE price_history IS 'A step function: one row per change point, valid until the next';

CREATE TABLE price_alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    watch_id bigint NOT NULL REFERENCES watched_products ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    asin text NOT NULL,
    marketplace text NOT NULL,
    price_type text NOT NULL,
    amount_minor integer NOT NULL CHECK (amount_minor > 0),
    previous_minor integer CHECK (previous_minor > 0),
    target_minor integer NOT NULL CHECK (target_minor > 0),
    lowest_in_year_minor integer CHECK (lowest_in_year_minor > 0),
    currency text NOT NULL,
    observed_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK (amount_minor <= target_minor),
    UNIQUE (watch_id, observed_at, target_minor)
);
CREATE INDEX price_alerts_of_user ON price_alerts (user_id, id);

CREATE TABLE deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES price_alerts ON DELETE CASCADE,
    channel_id bigint NOT NULL REFERENCES channels ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    tries integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    delivered_at timestamptz,
    receipt text,
    last_failure text,
    CHECK ((status = 'delivered') = (delivered_at IS NOT NULL)),
    UNIQUE (alert_id, channel_id)
);
CREATE INDEX deliveries_of_channel ON deliveries (channel_id, id);

CREATE TABLE collected_deals (
    asin text NOT NULL CHECK (asin ~ '^[A-Z0-9]{10}$'),
    marketplace text NOT NULL,
    price_type text NOT NULL,
    changed_at timestamptz NOT NULL,
    amount_minor integer NOT NULL CHECK (amount_minor > 0),
    list_price_minor integer CHECK (list_price_minor > 0),
    currency text NOT NULL,
    discount_pct numeric(5, 2),
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    ended_at timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (asin, marketplace, price_type, changed_at)
);

CREATE TABLE deal_filters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    rules jsonb NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    UNIQUE (user_id, name)
);

CREATE TABLE deal_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    filter_id bigint NOT NULL REFERENCES deal_filters ON DELETE CASCADE,
    report_date date NOT NULL,
    deal_count integer NOT NULL CHECK (deal_count >= 0),
    created_at timestamptz NOT NULL DEFAULT keeper_now(),
    UNIQUE (filter_id, report_date)
);

CREATE SEQUENCE event_seq;
CREATE TABLE events (
    recorded_on date NOT NULL DEFAULT current_date,
    seq bigint NOT NULL DEFAULT nextval('event_seq'),
    event_id uuid NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    payload json NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (recorded_on, seq)
) PARTITION BY RANGE (recorded_on);
CREATE TABLE events_default PARTITION OF events DEFAULT;
COMMENT ON TABLE events IS 'Each event once, kept some days; the outbox points here';

CREATE TABLE outbox (
    sink text NOT NULL,
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 15),
    id bigint GENERATED ALWAYS AS IDENTITY,
    key text NOT NULL,
    event_on date NOT NULL,
    event_seq bigint NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    refusals integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    next_try_at timestamptz,
    last_failure text,
    PRIMARY KEY (sink, shard, id)
);
CREATE INDEX outbox_held ON outbox (sink, shard, key, id) WHERE next_try_at IS NOT NULL;
COMMENT ON TABLE outbox IS 'One thin row per event and sink that has not acknowledged it; deleted on acknowledgement';

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink text NOT NULL,
    key text NOT NULL,
    event_id uuid NOT NULL,
    kind text NOT NULL,
    version bigint NOT NULL,
    payload json NOT NULL,
    recorded_at timestamptz NOT NULL,
    tries integer NOT NULL,
    reason text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letters_of_sink ON dead_letters (sink, id);

CREATE TABLE token_ledger (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    key_fingerprint text,
    tokens integer NOT NULL DEFAULT 0,
    refill_per_minute integer NOT NULL DEFAULT 0 CHECK (refill_per_minute >= 0),
    flow_reduction_per_minute double precision NOT NULL DEFAULT 0,
    observed_at timestamptz,
    next_refill_at timestamptz,
    said_at timestamptz,
    unexplained_tokens integer NOT NULL DEFAULT 0,
    foreign_tokens bigint NOT NULL DEFAULT 0,
    foreign_seen_at timestamptz
);
COMMENT ON TABLE token_ledger IS 'What Keepa last said of the bucket; observed_at null means it has not been asked yet';
COMMENT ON COLUMN token_ledger.said_at IS 'Keepa''s own time of that word, which orders answers; observed_at is our time of it';
INSERT INTO token_ledger DEFAULT VALUES;

CREATE TABLE token_reservations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation text NOT NULL,
    priority smallint NOT NULL,
    tokens integer NOT NULL CHECK (tokens > 0),
    is_granted boolean NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE keepa_calls (
    id uuid PRIMARY KEY,
    called_at timestamptz NOT NULL,
    operation text NOT NULL,
    marketplace text,
    asin_count integer NOT NULL,
    tokens_consumed integer,
    tokens_left integer,
    refill_per_minute integer,
    refill_in_ms integer,
    response_time_ms integer NOT NULL,
    success boolean NOT NULL,
    error text
);
CREATE INDEX keepa_calls_by_time ON keepa_calls (called_at);
"""

DOWNGRADE = """
DROP TABLE keepa_calls, token_reservations, token_ledger, dead_letters, outbox, events, deal_reports, deal_filters, collected_deals,
    deliveries, price_alerts, price_history, current_prices, check_claims, watched_products, products, channels, api_keys, users CASCADE;
DROP SEQUENCE event_seq;
DROP FUNCTION keeper_now() CASCADE;
DROP TABLE installation;
"""


def upgrade() -> None:
    """Create everything."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Drop everything, data included."""
    op.execute(DOWNGRADE)
