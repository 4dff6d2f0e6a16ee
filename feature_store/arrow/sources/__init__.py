"""The seam of offline sources: from a definition to its rows as Arrow batches.

    source.py     OfflineSource and Piece: what a kind of source implements
    opening.py    finds the implementation by the definition's kind
    sequence.py   the rows as one sequence, for engines that come back for some of them
    late_rows.py  which rows came after the last read
    parquet/      the implementation for ParquetSource

CONTRIBUTING.md says how to add a kind; `feature_store.testing.sources` is the suite that it must pass.
"""
