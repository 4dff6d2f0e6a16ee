"""The interface of offline sources: from a definition to its rows as Arrow batches.

    source.py     OfflineSource and Piece: the interface that a kind of source implements
    readers.py    finds the implementation of a definition
    opening.py    opens a source, and checks that it has the columns of a view
    renamed.py    the rows with other column names, for `field_mapping`
    sequence.py   the rows as one sequence, for engines that read some rows again
    late_rows.py  the rows that arrived after the last read
    files.py      the files of a path
    lacking.py    the columns that some files of a source lack
    cutting.py    the groups of rows of a file, cut into pieces
    export.py     the rows as Parquet files, for the SQL of views
    parquet/      the implementation for ParquetSource
    arrow_files.py  the implementation for ArrowSource
    avro_rows.py  the implementation for AvroSource
    csv_rows.py   the implementation for CsvSource
    json_lines_rows.py  the implementation for JsonLinesSource
    streamed_files.py  files that are read from begin to end, such as those of CsvSource
    read_files.py  which files an earlier read saw
    lake/         the implementations for DeltaSource, IcebergSource and partitioned folders of ParquetSource
    memory.py     the implementation for InMemorySource
    sql/          the implementation for SqlSource

CONTRIBUTING.md explains how to add a kind. `feature_store.testing.sources` is the suite that it must pass.
"""
