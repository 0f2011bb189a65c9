"""What a schema is, as the database knows it: to hold one against another."""

from sqlalchemy import Engine

from tests.integration.makers import rows

_OURS = "AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = {oid} AND d.classid = '{of}'::regclass AND d.deptype = 'e')"

_PARTS = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            pg_get_expr(f.adbin, f.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "tables": """
        SELECT c.relname, c.relkind, array_to_string(c.reloptions, ','), pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
            obj_description(c.oid, 'pg_class')
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    """,
    "indexes": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": """
        SELECT conrelid::regclass::text, contype, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    """,
    "sequences": "SELECT sequencename, data_type::text, increment_by, cycle FROM pg_sequences WHERE schemaname = 'public'",
    "functions": f"""
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc') FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace {_OURS.format(oid="p.oid", of="pg_proc")}
    """,
    # Without parentheses: of several ORs a dump makes one.
    "triggers": "SELECT tgrelid::regclass::text, translate(pg_get_triggerdef(oid), '()', '') FROM pg_trigger WHERE NOT tgisinternal",
    "statistics": "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxnamespace = 'public'::regnamespace",
    "configurations": """
        SELECT cfgname, m.maptokentype, m.mapseqno, m.mapdict::regdictionary::text
        FROM pg_ts_config c JOIN pg_ts_config_map m ON m.mapcfg = c.oid WHERE cfgnamespace = 'public'::regnamespace
    """,
    "dictionaries": f"""
        SELECT dictname, dictinitoption FROM pg_ts_dict t
        WHERE dictnamespace = 'public'::regnamespace {_OURS.format(oid="t.oid", of="pg_ts_dict")}
    """,
    "extensions": "SELECT extname FROM pg_extension",
}


def schema_of(engine: Engine) -> dict[str, list[str]]:
    """Everything in the schema public, by kind: a line each, without the names of constraints and the order of columns."""
    return {part: sorted(map(str, rows(engine, query))) for part, query in _PARTS.items()}
