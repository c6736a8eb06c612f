"""Limits of one client: what it may request and send, and how long it may wait."""

import asyncio
import ipaddress
from collections import OrderedDict

from aiolimiter import AsyncLimiter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from drainer.policy.pacing.rate import Rate

MAX_BODY = 64 * 1024
MAX_CLIENTS = 1000
_CLOSE = {"Connection": "close"}
"""The rest of a refused body is not read."""


class ClientLimits:
    """A token bucket for each client, for the latest thousand clients."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, AsyncLimiter] = OrderedDict()

    async def may(self, client: str) -> bool:
        """Take one request from a client's bucket; return False if it is empty."""
        key = neighbourhood(client)
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = AsyncLimiter(self._rate.burst, self._rate.period)
        self._buckets[key] = bucket
        while len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not bucket.has_capacity():
            return False
        await bucket.acquire()
        return True

    @property
    def retry_after(self) -> int:
        """Return the whole seconds after which one more request is accepted."""
        return max(1, round(0.5 + 1 / self._rate.per_second))


class LoginFailures:
    """Limits on failed logins that get their own answer: of each client, and in all.

    A login is checked before it is counted. So a valid one never meets this limit.
    """

    def __init__(self, rate: Rate) -> None:
        """Let all clients together fail ten times as often as one."""
        total = Rate(per_second=10 * rate.per_second, burst=10 * rate.burst)
        self._each, self._total = ClientLimits(rate), ClientLimits(total)

    async def may(self, client: str) -> bool:
        """Count one; return False if there were too many."""
        return await self._each.may(client) and await self._total.may("")

    @property
    def retry_after(self) -> int:
        """Return the whole seconds after which one more gets its answer."""
        return self._each.retry_after


def client_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""


def neighbourhood(client: str) -> str:
    """Return what counts as one client: for IPv6, a network as providers assign it."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


async def read_all(request: Request, seconds: float) -> bytes:
    """Return the body; HTTPException if it is too large or takes too long."""
    try:
        async with asyncio.timeout(seconds):
            return await _read(request)
    except TimeoutError:
        words = f"the body took longer than {seconds:g} s"
        raise HTTPException(408, words, _CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected", _CLOSE) from None


async def _read(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    body = bytearray()
    if length.isdecimal() and int(length[:12]) <= MAX_BODY:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
        else:
            return bytes(body)
    raise HTTPException(413, f"a body may have at most {MAX_BODY} bytes", _CLOSE)
