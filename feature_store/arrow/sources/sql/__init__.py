"""The rows of databases: the implementation of SqlSource, by ADBC.

    rows.py        SqlRows: a source, and its pieces
    dialect.py     what differs between databases, and the plain dialect for those without a module here
    postgresql.py  PostgreSQL: exported snapshots, COPY, pieces by blocks
    sqlite.py      SQLite: types of columns, versions of files
    ahead.py       a thread that receives rows while the engine works
    drivers.py     the dialect of a URL
    reading.py     the rows of a table or query as plain data, and their reading
    session.py     one connection: the only module that imports ADBC, and the errors of databases
    seen.py        which rows a job has read: the document for incremental jobs

A statement is `SELECT columns FROM table-or-query WHERE window`. Names are always quoted. The only values in statements
are numbers and times that this package formats, because COPY, by which PostgreSQL streams rows, takes no parameters.
"""
