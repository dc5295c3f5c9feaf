"""Run the migrations on the connection that `app.catalog.migrate` hands over.

It owns the transaction and the lock; without it alembic only makes new, empty scripts.
"""

from alembic import context

from app.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
