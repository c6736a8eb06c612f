"""HTTP: health hooks, metrics, and a page that shows what the watch is doing.

The server trusts nothing that arrives here. A hook makes the watch check the primary;
an operator's order goes into the ledger. Needs the extra ``hook``: Starlette and
uvicorn.
"""
