"""Run by Alembic for each upgrade: it applies the migrations on the connection that `migrate` opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table=context.config.attributes["version_table"]
)
context.run_migrations()
