"""Pages that show a project: what is served, how fresh it is, where it comes from, what it costs. They change nothing.

app.py         the routes, and what goes wrong
security.py    who may look, and what a browser may do with a page
snapshot.py    the applied definitions, read anew when there is a newer version
background.py  what takes longer than a page may: counted beside it
<page>.py      the data of one page each; templates/ lays them out
"""

from feature_store.errors import extra

with extra("ui", "feature_store.ui"):
    import jinja2 as jinja2
    import starlette as starlette
