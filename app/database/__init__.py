"""The database: what is kept over restarts, in SQLite or PostgreSQL.

SQLAlchemy and Alembic are imported when the database is opened, not when the server starts.
"""
