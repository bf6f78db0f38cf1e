"""Migrations: the steps by which Alembic brings a database to the present tables."""
