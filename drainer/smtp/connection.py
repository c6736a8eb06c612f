"""From an address to a session: connect, banner, EHLO or LHLO, STARTTLS, AUTH.

The exceptions of aiosmtplib end here: what went wrong is the answer of a Stage. Every
stage is timed, for the health check and the trace.
"""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import cast

import aiosmtplib
from msgspec import Struct, field
from msgspec.structs import replace

from drainer.mail.reply import Lost, Reply, Stage
from drainer.mail.reply_codes import CLOSING
from drainer.runtime.host_limits import limit_behind
from drainer.smtp.aiosmtplib_reply import (
    find_extra_refusal,
    loss_of,
    refusal_of,
    reply_of,
)
from drainer.smtp.certificate import key_digest
from drainer.smtp.dane import DaneFailure, Tlsa, TlsaSilence, chain_of
from drainer.smtp.dialogue import LoggedProtocol, session_log, wire_class
from drainer.smtp.login import LoginImpossible, login_attempt
from drainer.smtp.protocol import SmtpProtocol, spare_descriptor
from drainer.smtp.route import Host, Login, Route
from drainer.smtp.server_address import (
    connect_socket,
    new_socket,
    resolve,
)
from drainer.smtp.tls import client_context, tls_facts

_COMPLETED = 250


class ConnectStep(Struct, frozen=True, kw_only=True):
    """One stage of opening a session: how it ended and how long it took."""

    stage: Stage
    answer: Reply | Lost
    seconds: float
    #: Which address, which certificate: facts for the health check.
    facts: dict[str, object] = field(default_factory=dict)


class Connection(Struct, frozen=True, kw_only=True):
    """An established session."""

    wire: SmtpProtocol
    address: str
    #: EHLO keywords, lower-cased, with their parameters.
    extensions: dict[str, str]
    banner: Reply
    #: The peer's own name: the first word of its EHLO reply.
    peer_name: str
    steps: tuple[ConnectStep, ...]
    opened: float
    tls: bool
    #: Whether the certificate was valid for the host.
    verified: bool = False
    #: The server of the route, if it was chosen among several (smtp.hosts).
    server: Host | None = None
    #: The name that the route gives the peer.
    host: str = ""
    #: smtp or lmtp.
    protocol: str = "smtp"
    #: Names the session in the ledger.
    id: str = field(default_factory=lambda: f"{random.getrandbits(48):012x}")

    @property
    def name(self) -> str:
        """The address, the id, the host and the protocol, as the ledger keeps them."""
        return f"{self.address} {self.id} {self.host} {self.protocol}"

    @property
    def shown(self) -> str:
        """The host and its address, for people."""
        bare = self.address.rpartition(":")[0].strip("[]")
        if self.host in ("", bare, self.address):
            return self.address
        return f"{self.host} ({self.address})"


class ConnectFailure(Exception):
    """A stage failed; the steps so far, the failed one last."""

    def __init__(self, steps: list[ConnectStep]) -> None:
        """Keep the steps."""
        super().__init__(str(steps[-1].answer) if steps else "")
        self.steps = tuple(steps)


async def connect(
    route: Route, *, tls: str | None = None
) -> Connection | ConnectFailure:
    """Open a session; return it, or the steps up to the one that failed.

    A handshake that fails while TLS is only opportunistic is followed by one more
    connection in the clear (RFC 7435 3). A route that requires TLS makes no second one.
    Raises HostLimit when this host, and not the primary, is the limit.
    """
    opening = _Handshake(route if tls is None else replace(route, tls=tls))
    try:
        return await opening.run()
    except ConnectFailure as failed:
        opening.abandon()
        if opening.route.requires_tls or not opening.handshake_failed:
            return failed
        again = await connect(route, tls="off")
        if isinstance(again, ConnectFailure):
            return again
        return replace(again, steps=(failed.steps[-1], *again.steps))
    except OSError as error:
        opening.abandon()
        raise limit_behind(error) or error from None
    except BaseException:
        opening.abandon()
        raise


class _Handshake:
    """The stages of one connection, in order."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.handshake_failed = False
        self._steps: list[ConnectStep] = []
        self._smtp: aiosmtplib.SMTP | None = None
        self._address = ""
        #: What DNS says about the certificate, with DANE.
        self._tlsa: Tlsa | None = None
        self._log = session_log()

    async def run(self) -> Connection:
        await self._find_tlsa()
        sock = await self._reach()
        smtp = self._smtp = aiosmtplib.SMTP(
            hostname=None,
            sock=sock,
            local_hostname=self.route.helo,
            start_tls=False,
            timeout=self.route.timeouts.banner,
        )
        if self.route.tls == "implicit":
            smtp.use_tls, smtp.tls_context = True, self._context()
            smtp.hostname = self._server_name
        banner = await self._greet(smtp)
        ehlo = await self._ehlo(smtp)
        if self.route.starts_tls:
            ehlo = await self._starttls(smtp) or ehlo
        if self.route.login is not None:
            await self._login(smtp, self.route.login)
        return self._adopt(smtp, banner, ehlo)

    def abandon(self) -> None:
        """Close everything that is open."""
        if self._smtp is not None:
            if (transport := self._smtp.transport) is not None:
                cast("asyncio.Transport", transport).abort()  # with TLS, close() waits
            self._smtp.close()

    async def _find_tlsa(self) -> None:
        """Ask which certificate the server has; TLS is required if DNS says it."""
        start, route = time.monotonic(), self.route
        if route.dane is None or route.tls == "off" or route.socket_path:
            return
        try:
            self._tlsa = await route.dane.find(route.host, route.port)
        except TlsaSilence as failure:
            raise self._lose(Stage.CONNECT, "unresolved", failure, start) from None
        except DaneFailure as failure:
            raise self._lose(Stage.STARTTLS, "tls", failure, start) from None
        if self._tlsa is not None and route.tls != "implicit":
            self.route = replace(route, tls="required")

    async def _reach(self) -> socket.socket:
        """Connect to the first address that answers; each try is a step."""
        start = time.monotonic()
        try:
            addresses = await resolve(self.route)
        except OSError as error:
            raise self._lose(Stage.CONNECT, "unresolved", error, start) from None
        for address in addresses:
            start = time.monotonic()
            self._address = str(address)
            self._log(f"connects to {address}")
            sock = new_socket(address)
            try:
                async with asyncio.timeout(self.route.timeouts.connect):
                    await connect_socket(sock, address, self.route)
            except (OSError, TimeoutError) as error:
                sock.close()
                self._fail(Stage.CONNECT, loss_of(error), start)
                continue
            except BaseException:
                sock.close()
                raise
            self._note(Stage.CONNECT, Reply(code=220, text="connected"), start)
            return sock
        raise ConnectFailure(self._steps)

    @property
    def _server_name(self) -> str:
        return self._tlsa.names[0] if self._tlsa else self.route.host.rstrip(".")

    def _context(self) -> ssl.SSLContext:
        route = self.route
        return client_context(
            verify=route.verifies and not route.requires_dane,
            minimum=route.tls_minimum,
            files=route.tls_files,
        )

    async def _greet(self, smtp: aiosmtplib.SMTP) -> Reply:
        """Wait for the banner, behind a handshake if TLS is implicit."""
        start = time.monotonic()
        if not smtp.use_tls:
            return await self._stage(Stage.BANNER, smtp.connect())
        try:
            banner = await self._stage(Stage.BANNER, smtp.connect())
        except ConnectFailure as failed:
            answer = failed.steps[-1].answer
            if isinstance(answer, Lost) and answer.reason == "tls":
                self._steps.pop()
                raise self._fail(Stage.STARTTLS, answer, start) from None
            raise
        facts = tls_facts(smtp.get_transport_info("ssl_object"))
        self._note(Stage.STARTTLS, Reply(code=220, text="implicit TLS"), start, facts)
        self._check_key(smtp)
        return banner

    def _check_key(self, smtp: aiosmtplib.SMTP) -> None:
        """Refuse a server whose key is none that DNS or the configuration names."""
        facts, pins = self._steps[-1].facts, self.route.tls_files.pin
        if self._tlsa is not None:
            try:
                self._tlsa.check(chain_of(smtp.get_transport_info("ssl_object")))
            except DaneFailure as failure:
                raise self._lose(Stage.STARTTLS, "tls", failure) from None
        found = key_digest(bytes.fromhex(str(facts.get("certificate_der", ""))))
        if pins and found not in pins:
            detail = (
                f"the SHA-256 of its public key is {found}, which is not in tls_pin"
            )
            raise self._lose(Stage.STARTTLS, "tls", detail)
        if pins or (self._tlsa is not None and self._tlsa.records):
            facts["verified"] = True

    async def _ehlo(self, smtp: aiosmtplib.SMTP) -> Reply:
        self._log(f"> {self.route.hello} {self.route.helo}")
        try:
            reply = await self._stage(Stage.EHLO, _say_hello(smtp, self.route))
            for keyword in self.route.ignore_extensions:
                smtp.esmtp_extensions.pop(keyword, None)
            return reply  # noqa: TRY300 - the one that is left alone
        except ConnectFailure as failed:
            answer = failed.steps[-1].answer
            old = isinstance(answer, Reply) and answer.code in (500, 502)
            if self.route.requires_tls or self.route.speaks_lmtp or not old:
                raise
        # RFC 5321 4.1.4: a server of RFC 821's days
        self._log(f"> HELO {self.route.helo}")
        return await self._stage(Stage.EHLO, smtp.helo(hostname=self.route.helo))

    async def _starttls(self, smtp: aiosmtplib.SMTP) -> Reply | None:
        """Start TLS; return None when it stays in the clear, as the policy allows."""
        required = self.route.requires_tls
        if not smtp.supports_extension("starttls"):
            if required:
                reply = Reply(code=502, text="the primary does not offer STARTTLS")
                raise self._fail(Stage.STARTTLS, reply, time.monotonic())
            return None
        self._log("> STARTTLS")
        try:
            await self._stage(
                Stage.STARTTLS,
                smtp.starttls(
                    server_hostname=self._server_name,
                    tls_context=self._context(),
                    timeout=self.route.timeouts.ehlo,
                ),
                facts=lambda: tls_facts(smtp.get_transport_info("ssl_object")),
            )
        except ConnectFailure as failed:
            answer = failed.steps[-1].answer
            self.handshake_failed = isinstance(answer, Lost)
            closes = isinstance(answer, Reply) and answer.code == CLOSING
            if required or self.handshake_failed or closes:
                raise
            return None
        self._check_key(smtp)
        return await self._ehlo(smtp)  # RFC 3207 4.2

    async def _login(self, smtp: aiosmtplib.SMTP, login: Login) -> None:
        start = time.monotonic()
        self._log("> AUTH ***")
        try:
            attempt = await login_attempt(smtp, login)
        except LoginImpossible as error:
            raise self._fail(Stage.AUTH, error.answer, start) from None
        await self._stage(Stage.AUTH, attempt)

    async def _stage(
        self,
        stage: Stage,
        doing: Awaitable[aiosmtplib.SMTPResponse],
        facts: Callable[[], dict[str, object]] = dict,
    ) -> Reply:
        start = time.monotonic()
        try:
            answer = reply_of(*(await doing))
        except aiosmtplib.SMTPResponseException as refusal:
            refused = refusal_of(refusal.code, refusal.message)
            raise self._fail(stage, refused, start) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # ValueError: the reply is malformed, or TLS does not take the host name
            raise self._fail(stage, loss_of(error), start) from None
        if extra := self._unread():
            raise self._fail(stage, find_extra_refusal(extra), start)
        self._note(stage, answer, start, facts())
        return answer

    def _unread(self) -> bytes:
        """Return what came together with a reply, and belongs to no command.

        aiosmtplib would take it as the reply to the next command.
        """
        protocol = self._smtp.protocol if self._smtp else None
        return bytes(protocol._buffer) if protocol else b""  # noqa: SLF001

    def _note(
        self,
        stage: Stage,
        answer: Reply | Lost,
        start: float,
        facts: dict[str, object] | None = None,
    ) -> None:
        if stage is not Stage.CONNECT or isinstance(answer, Lost):
            self._log(f"< {answer}")
        seconds = time.monotonic() - start
        known = {"address": self._address} | (facts or {})
        self._steps.append(
            ConnectStep(stage=stage, answer=answer, seconds=seconds, facts=known)
        )

    def _lose(
        self, stage: Stage, reason: str, detail: object, start: float | None = None
    ) -> ConnectFailure:
        lost = Lost(reason=reason, detail=str(detail))
        return self._fail(stage, lost, start or time.monotonic())

    def _fail(self, stage: Stage, answer: Reply | Lost, start: float) -> ConnectFailure:
        self._note(stage, answer, start)
        return ConnectFailure(self._steps)

    def _adopt(self, smtp: aiosmtplib.SMTP, banner: Reply, ehlo: Reply) -> Connection:
        """Move the transport to our own protocol."""
        transport = smtp.transport
        if transport is None:
            words = "right after the session was open"
            raise self._lose(Stage.EHLO, "closed", words)
        wire = wire_class()(asyncio.get_running_loop())
        if isinstance(wire, LoggedProtocol):
            wire.log = self._log
        spare = spare_descriptor(transport)
        wire.attach(cast("asyncio.Transport", transport), spare)
        context = transport.get_extra_info("sslcontext")
        tls = [each for each in self._steps if each.stage is Stage.STARTTLS]
        return Connection(
            wire=wire,
            address=self._address,
            extensions=dict(smtp.esmtp_extensions),
            banner=banner,
            peer_name=ehlo.text.split(" ", 1)[0] if ehlo.text else "",
            steps=tuple(self._steps),
            opened=time.monotonic(),
            tls=context is not None,
            verified=bool(tls and tls[-1].facts.get("verified")),
            host=self.route.host,
            protocol="lmtp" if self.route.speaks_lmtp else "smtp",
        )


async def _say_hello(smtp: aiosmtplib.SMTP, route: Route) -> aiosmtplib.SMTPResponse:
    """Send EHLO or LHLO; aiosmtplib has no method for the latter (RFC 2033 4.1)."""
    answer = await smtp.execute_command(
        route.hello.encode(), route.helo.encode("ascii"), timeout=route.timeouts.ehlo
    )
    if answer.code != _COMPLETED:
        raise aiosmtplib.SMTPHeloError(answer.code, answer.message)
    smtp.last_ehlo_response = answer
    return answer
