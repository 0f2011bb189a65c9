"""Words of products can be searched, and a deal's document is whole."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Both extensions are trusted: the database's owner may create them.
# The words live in a table of their own: `products` is rewritten at every check, and neither a stored tsvector (computed anew at each
# UPDATE that names the title) nor an expression index (nothing to rank by without parsing every title again) is paid there.
# No stop words, as in Elasticsearch: "mit" in quotes means "mit".
UPGRADE = """
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TEXT SEARCH DICTIONARY keeper_german_stem (TEMPLATE = snowball, LANGUAGE = german);
CREATE TEXT SEARCH CONFIGURATION keeper_german (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION keeper_german
    ALTER MAPPING FOR asciiword, asciihword, hword_asciipart, word, hword, hword_part WITH keeper_german_stem;

CREATE FUNCTION keeper_fold(said text) RETURNS text LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT regexp_replace(replace(replace(plain, 'ae', 'a'), 'oe', 'o'), '(^|[^aeiouyq])ue', '\\1u', 'g')
    FROM regexp_replace(lower(unaccent(normalize(left(said, 2000), NFKC))), '[^[:alnum:]]+', ' ', 'g') plain
$$;
COMMENT ON FUNCTION keeper_fold IS 'Words without accents, case and signs; ä and ae, ö and oe, ü and ue, ß and ss are one';

CREATE FUNCTION keeper_words(title text, brand text) RETURNS tsvector LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT setweight(to_tsvector('keeper_german', keeper_fold(coalesce(title, ''))), 'A')
        || setweight(to_tsvector('keeper_german', keeper_fold(coalesce(brand, ''))), 'B')
$$;

CREATE FUNCTION keeper_folded(title text, brand text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT rtrim(' ' || ltrim(keeper_fold(concat_ws(' ', title, brand))))
$$;

CREATE TABLE product_texts (
    asin text NOT NULL,
    marketplace text NOT NULL,
    words tsvector NOT NULL,
    folded text NOT NULL,
    PRIMARY KEY (asin, marketplace)
);
COMMENT ON TABLE product_texts IS 'Title and brand of each row of products, as they are searched; kept by triggers';
COMMENT ON COLUMN product_texts.folded IS 'With a space before each word';

-- Not unique, so that two who record the same new word never wait for each other.
CREATE TABLE product_words (word text NOT NULL);
COMMENT ON TABLE product_words IS 'Words that titles and brands have or had, mostly once each: what a mistyped word may have meant';

CREATE FUNCTION add_words(texts text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO product_words (word)
    SELECT word FROM (SELECT DISTINCT unnest(string_to_array(folded, ' ')) AS word FROM unnest(texts) folded) said
    WHERE length(word) BETWEEN 3 AND 40 AND NOT EXISTS (SELECT 1 FROM product_words known WHERE known.word = said.word)
$$;

CREATE FUNCTION keep_added_texts() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO product_texts (asin, marketplace, words, folded)
    SELECT asin, marketplace, keeper_words(title, brand), keeper_folded(title, brand) FROM added
    ON CONFLICT (asin, marketplace) DO UPDATE SET words = excluded.words, folded = excluded.folded;
    PERFORM add_words(array_agg(keeper_folded(title, brand))) FROM added;
    RETURN NULL;
END $$;
CREATE FUNCTION keep_changed_text() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE product_texts SET asin = NEW.asin, marketplace = NEW.marketplace,
        words = keeper_words(NEW.title, NEW.brand), folded = keeper_folded(NEW.title, NEW.brand)
    WHERE asin = OLD.asin AND marketplace = OLD.marketplace;
    PERFORM add_words(ARRAY[keeper_folded(NEW.title, NEW.brand)]);
    RETURN NULL;
END $$;
CREATE FUNCTION drop_text() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM product_texts WHERE asin = OLD.asin AND marketplace = OLD.marketplace;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_added_texts AFTER INSERT ON products REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION keep_added_texts();
CREATE TRIGGER keep_changed_text AFTER UPDATE ON products FOR EACH ROW
    WHEN ((OLD.title, OLD.brand, OLD.asin, OLD.marketplace) IS DISTINCT FROM (NEW.title, NEW.brand, NEW.asin, NEW.marketplace))
    EXECUTE FUNCTION keep_changed_text();
CREATE TRIGGER drop_text AFTER DELETE ON products FOR EACH ROW EXECUTE FUNCTION drop_text();

INSERT INTO product_texts (asin, marketplace, words, folded)
SELECT asin, marketplace, keeper_words(title, brand), keeper_folded(title, brand) FROM products;
SELECT add_words(array_agg(folded)) FROM product_texts;
CREATE INDEX product_words_exact ON product_words (word);
CREATE INDEX product_words_alike ON product_words USING gin (word gin_trgm_ops);
CREATE INDEX product_texts_words ON product_texts USING gin (words);
CREATE INDEX product_texts_trigrams ON product_texts USING gin (folded gin_trgm_ops);

ALTER TABLE collected_deals
    ADD COLUMN event_id uuid UNIQUE,
    ADD COLUMN previous_minor integer CHECK (previous_minor > 0),
    ADD COLUMN rating_tenths smallint,
    ADD COLUMN review_count integer,
    ADD COLUMN sales_rank integer,
    ADD COLUMN description text,
    ADD COLUMN category text,
    ADD COLUMN prime_eligible boolean,
    ADD COLUMN url text,
    ADD COLUMN deal_score double precision,
    SET (fillfactor = 80);
COMMENT ON COLUMN collected_deals.event_id IS 'Of the event its collection made; a report repeats the deal under the same';
-- A sighting moves last_seen_at only, so none of these is touched by it.
CREATE INDEX collected_deals_newest ON collected_deals (marketplace, changed_at) WHERE ended_at IS NULL;
CREATE INDEX collected_deals_cheapest ON collected_deals (marketplace, amount_minor) WHERE ended_at IS NULL;
CREATE INDEX collected_deals_largest ON collected_deals (marketplace, coalesce(discount_pct, -1000)) WHERE ended_at IS NULL;
"""

# The extensions stay: they may have been there before.
DOWNGRADE = """
DROP INDEX collected_deals_newest, collected_deals_cheapest, collected_deals_largest;
ALTER TABLE collected_deals
    DROP COLUMN event_id, DROP COLUMN previous_minor, DROP COLUMN rating_tenths, DROP COLUMN review_count, DROP COLUMN sales_rank,
    DROP COLUMN description, DROP COLUMN category, DROP COLUMN prime_eligible, DROP COLUMN url, DROP COLUMN deal_score,
    RESET (fillfactor);
DROP TRIGGER keep_added_texts ON products;
DROP TRIGGER keep_changed_text ON products;
DROP TRIGGER drop_text ON products;
DROP FUNCTION keep_added_texts, keep_changed_text, drop_text;
DROP FUNCTION add_words;
DROP TABLE product_texts, product_words;
DROP FUNCTION keeper_folded, keeper_words, keeper_fold;
DROP TEXT SEARCH CONFIGURATION keeper_german;
DROP TEXT SEARCH DICTIONARY keeper_german_stem;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away, with what only they hold of deals."""
    op.execute(DOWNGRADE)
