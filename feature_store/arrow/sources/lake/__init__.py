"""Tables in lakes: formats whose metadata list the Parquet files of each version of a table.

data_files.py  the rows of a data file, with the columns of the table
sequence.py    the rows of data files as one sequence
rows.py        LakeRows: the OfflineSource that the formats share
delta.py       Delta Lake: the data files of a version
delta_log.py   Delta Lake: the data files that were added since an earlier version
folders.py     folders whose names hold columns, and whose files are listed
"""
