"""HTTP: health hooks, metrics, and a page that shows what the watch is doing.

The server trusts nothing that arrives here. A hook makes the watch check the primary.
An operator's order goes into the ledger, where the drains of the route find it. Answers
come from the watch's own snapshot and from the ledger.

Needs the extra ``hook``: Starlette and uvicorn.
"""
