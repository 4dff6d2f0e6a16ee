"""Tables in lakes: formats whose metadata list the Parquet files of each version of a table.

data_files.py         the rows of a data file, with the columns of the table
sequence.py           the rows of data files as one sequence
rows.py               LakeRows: the OfflineSource that the formats share
delta.py              Delta Lake: the data files of a version
delta_log.py          Delta Lake: the data files that were added since an earlier version
folders.py            folders whose names hold columns, and whose files are listed
iceberg.py            Iceberg: the data files of a snapshot
iceberg_catalog.py    Iceberg: the tables of catalogs
iceberg_pruning.py    Iceberg: the data files that may hold rows in a range of times
iceberg_snapshots.py  Iceberg: the snapshots that added rows since an earlier one
"""
