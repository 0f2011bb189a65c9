"""Alembic's entry: runs the versions on the connection that `keeper.postgres.migrate` opened under its lock."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run `keeper migrate`: it knows the database and takes the lock")

context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=False)
context.run_migrations()
