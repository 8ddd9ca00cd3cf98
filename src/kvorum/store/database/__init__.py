"""Where tables are kept: SQLite files, and PostgreSQL databases by URL."""
