"""Pages that show a project: what is served, how fresh it is, where it comes from, what it costs. They change nothing.

app.py         the routes, how pages become answers, and the pages of errors
site.py        what the pages share
pages/         the pages, a module each; templates/ lays them out
security.py    who may look, and what a browser may do with a page
snapshot.py    the applied definitions, read again when there is a newer version
background.py  computes what takes longer than a page may
the others     the data of one page or part each
"""

from feature_store._extras import requires_extra

with requires_extra("ui", "feature_store.ui"):
    import jinja2 as jinja2
    import starlette as starlette
