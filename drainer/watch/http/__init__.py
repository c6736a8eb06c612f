"""HTTP: health hooks, metrics, and a page that shows what the watch is doing.

Nothing that arrives here is believed: a hook makes the watch look at the primary, and
an operator's order goes into the ledger, where the drains of the route find it. What
goes out comes from the watch's own snapshot and from the ledger.

Needs the extra ``hook``: Starlette and uvicorn, and Prometheus' own client for the text
of its format.
"""
