"""Read-only web pages of a project: definitions, freshness, lineage, costs, stored values.

app.py         the routes, how pages become answers, and the pages of errors
site.py        what the pages share
pages/         the pages, one module each; templates/ has their HTML
security.py    who may read the pages, and what a browser may do with them
snapshot.py    the applied definitions, read again when there is a newer version
background.py  computes values that take longer than a page may
the others     the data of one page, or of a part of it
"""

from feature_store._extras import requires_extra

with requires_extra("ui", "feature_store.ui"):
    import jinja2 as jinja2
    import starlette as starlette
