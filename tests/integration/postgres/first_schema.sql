-- Data as the first schema (0001) kept them, written by hand: a year's product, one that is gone, people, what was told and what waits.
-- {channel} stands for the URL of anna's mailbox, encrypted with the key of the test.

UPDATE installation SET keepa_source = 'simulator', channel_key_fingerprint = '{fingerprint}';

INSERT INTO users (name, role, created_at) VALUES ('anna', 'user', '2026-01-02 08:00Z'), ('bernd', 'admin', '2026-01-03 08:00Z');
INSERT INTO api_keys (user_id, label, key_hash, scope, created_at, revoked_at) VALUES
    (1, 'phone', decode(repeat('a1', 32), 'hex'), 'write', '2026-01-02 08:00Z', NULL),
    (2, 'old', decode(repeat('b2', 32), 'hex'), 'admin', '2026-01-03 08:00Z', '2026-02-01 08:00Z');
INSERT INTO channels (user_id, name, scheme, shown, url_encrypted, key_fingerprint) VALUES
    (1, 'mail', 'mailto', 'mailto://a…@example.net', '{channel}', '{fingerprint}');

INSERT INTO products (asin, marketplace, kind, title, brand, category_ids, category_path, sales_rank, rating_tenths, first_seen_at,
    checked_at, revision)
VALUES
    ('B000000001', 'DE', 'standard', 'Cherry MX Tastatur für Büro', 'Cherry', '{340843031}', '{"Computer & Zubehör",Tastaturen}', 812, 46,
        '2025-11-01Z', '2026-11-20 11:00Z', 17),
    ('B000000001', 'UK', 'standard', 'Cherry MX Keyboard', 'Cherry', NULL, NULL, NULL, NULL, '2025-11-01Z', '2026-11-20 11:00Z', 3),
    ('B000000002', 'DE', 'inaccessible', NULL, NULL, NULL, NULL, NULL, NULL, '2026-03-01Z', '2026-11-19 11:00Z', 1);

-- Two watches of one product with one interval are one planned check since 0008; the buy box has its own, a removed watch none.
INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct, is_active,
    is_armed, created_at, next_check_at, last_checked_at, last_failure)
VALUES
    (1, 'B000000001', 'DE', 'NEW', 5000, 'EUR', 3600, 2, true, true, '2026-01-02Z', '2026-11-20 12:00Z', '2026-11-20 11:00Z', NULL),
    (2, 'B000000001', 'DE', 'NEW', 5500, 'EUR', 3600, 2.5, true, false, '2026-01-03Z', '2026-11-20 12:05Z', '2026-11-20 11:05Z', 'late'),
    (1, 'B000000001', 'DE', 'BUY_BOX_SHIPPING', NULL, 'EUR', 3600, 2, true, true, '2026-01-02Z', '2026-11-20 12:10Z', NULL, NULL),
    (1, 'B000000002', 'DE', 'NEW', 1000, 'EUR', 86400, 2, false, true, '2026-03-01Z', '2026-11-20 12:00Z', NULL, NULL);

INSERT INTO current_prices (asin, marketplace, price_type, amount_minor, currency, observed_at, checked_at) VALUES
    ('B000000001', 'DE', 'NEW', 5400, 'EUR', '2026-11-20 09:00Z', '2026-11-20 11:00Z'),
    ('B000000001', 'UK', 'NEW', NULL, 'GBP', '2026-11-01 09:00Z', '2026-11-20 11:00Z');
-- The oldest is of a month that has no partition.
INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency, event_id, event_version, previous_minor,
    target_minor)
VALUES
    ('B000000001', 'DE', 'NEW', '2024-01-05 09:00Z', 7999, 'EUR', NULL, NULL, NULL, NULL),
    ('B000000001', 'DE', 'NEW', '2026-10-01 09:00Z', 5999, 'EUR', '00000000-0000-0000-0000-000000000001', 1, 7999, 5000),
    ('B000000001', 'DE', 'NEW', '2026-11-10 09:00Z', NULL, 'EUR', '00000000-0000-0000-0000-000000000002', 1, 5999, 5000),
    ('B000000001', 'DE', 'NEW', '2026-11-20 09:00Z', 5400, 'EUR', '00000000-0000-0000-0000-000000000003', 1, NULL, 5000),
    ('B000000001', 'UK', 'NEW', '2026-11-01 09:00Z', NULL, 'GBP', NULL, NULL, NULL, NULL);

INSERT INTO price_alerts (watch_id, user_id, asin, marketplace, price_type, amount_minor, previous_minor, target_minor, currency,
    observed_at, created_at)
VALUES
    (1, 1, 'B000000001', 'DE', 'NEW', 4990, 5999, 5000, 'EUR', '2026-10-10 09:00Z', '2026-10-10 09:05Z'),
    (1, 1, 'B000000001', 'DE', 'NEW', 4890, 5999, 5000, 'EUR', '2026-11-05 09:00Z', '2026-11-05 09:05Z');
INSERT INTO deliveries (alert_id, channel_id, status, tries, delivered_at, receipt, last_failure) VALUES
    (1, 1, 'delivered', 1, '2026-10-10 09:06Z', '250 OK', NULL),
    (2, 1, 'pending', 1, NULL, NULL, '451 greylisted');

INSERT INTO events (event_id, kind, key, payload) VALUES
    ('00000000-0000-0000-0000-000000000003', 'price_update', 'B000000001', '{"asin": "B000000001", "price_minor": 5400}'),
    ('00000000-0000-0000-0000-0000000000a2', 'alert', '1', '{"delivery_id": 2, "channel_id": 1, "alert": {"alert_id": "2",
        "asin": "B000000001", "marketplace": "DE", "price_type": "NEW", "title": "Cherry MX Tastatur für Büro",
        "price": {"amount_minor": 4890, "currency": "EUR"}, "previous_price": {"amount_minor": 5999, "currency": "EUR"},
        "target": {"amount_minor": 5000, "currency": "EUR"}, "lowest_in_year": null, "image_url": null,
        "observed_at": "2026-11-05T09:00:00Z"}}');
INSERT INTO outbox (sink, shard, key, event_on, event_seq, tries, refusals)
SELECT CASE kind WHEN 'alert' THEN 'notify' ELSE 'kafka' END, (hashtextextended(key, 0) & 15)::smallint, key, recorded_on, seq,
    CASE kind WHEN 'alert' THEN 1 ELSE 0 END, CASE kind WHEN 'alert' THEN 1 ELSE 0 END
FROM events;
INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason) VALUES
    ('kafka', 'B000000002', '00000000-0000-0000-0000-0000000000d1', 'price_update', 1, '{}', '2026-11-01Z', 12, 'too large');

INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency, discount_pct,
    first_seen_at, last_seen_at, ended_at)
VALUES
    ('B000000001', 'DE', 'NEW', '2026-11-20 09:00Z', 5400, 8999, 'EUR', 39.99, '2026-11-20 09:30Z', '2026-11-20 11:00Z', NULL),
    ('B000000002', 'DE', 'NEW', '2026-06-01 09:00Z', 900, NULL, 'EUR', NULL, '2026-06-01 10:00Z', '2026-06-02 10:00Z', '2026-06-03Z');
INSERT INTO deal_filters (user_id, name, rules) VALUES (1, 'Tastaturen', '{"words": "tastatur"}');
-- Nothing wrote this table; 0005 makes another of its name.
INSERT INTO deal_reports (filter_id, report_date, deal_count) VALUES (1, '2026-11-19', 3);

UPDATE token_ledger SET key_fingerprint = 'f00d', tokens = 250, refill_per_minute = 5, observed_at = '2026-11-20 11:00Z',
    said_at = '2026-11-20 11:00Z';
INSERT INTO keepa_calls (id, called_at, operation, marketplace, asin_count, tokens_consumed, tokens_left, response_time_ms, success) VALUES
    ('00000000-0000-0000-0000-0000000000c1', '2026-11-20 11:00Z', 'product', 'DE', 2, 2, 250, 412, true);
