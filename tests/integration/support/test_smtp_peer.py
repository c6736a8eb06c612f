"""The scripted peer does what the tests that rely on it believe it does."""

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.smtp_peer.peer import Peer, PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    BodyStep,
    Delay,
    Drop,
    DropInBody,
    EarlyReply,
    Garbage,
    ReplyThenDrop,
    Reset,
    Script,
    Stall,
    in_turn,
    per_recipient,
)
from tests.support.tls.certificates import self_signed

ALICE = "alice@example.com"
BOB = "bob@example.org"
CAROL = "carol@example.org"
CONTENT = b"Subject: hello\r\n\r\n.\r\n..two\r\n\r\nend\r\n"

StartPeer = Callable[..., PeerThread]


def send(port: int, content: bytes = CONTENT, to: tuple[str, ...] = (BOB,)) -> None:
    """Send one message with a client that is not ours."""
    with smtplib.SMTP(
        "127.0.0.1", port, timeout=10, local_hostname="client.example"
    ) as client:
        client.sendmail(ALICE, to, content)


def converse(port: int, *parts: bytes) -> list[bytes]:
    """Send parts as they are, each after the reply to the one before."""
    replies = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in (b"", *parts):
            client.sendall(part)
            reply = client.recv(65536)
            while b"DATA\r\n" in part and b"\r\n354" not in reply:
                more = client.recv(65536)  # the replies may come one by one
                reply += more
                if not more:
                    break
            replies.append(reply)
        client.shutdown(socket.SHUT_WR)
        while rest := client.recv(65536):
            replies.append(rest)
    return replies


def test_the_peer_keeps_a_message_as_it_was_before_dot_stuffing(
    peer: StartPeer,
) -> None:
    """Content, paths and the reply of every recipient are kept."""
    server = peer()
    send(server.port, to=(BOB, CAROL))
    (message,) = server.accepted
    assert message.content == CONTENT
    assert (message.reverse_path, message.forward_paths) == (ALICE, [BOB, CAROL])
    assert message.parameters == {"SIZE": str(len(CONTENT))}
    assert [recipient.reply for recipient in message.recipients] == ["250 2.1.5 ok"] * 2


def test_each_recipient_has_its_own_reply(peer: StartPeer) -> None:
    """A refused recipient is none of the message's forward paths."""
    server = peer(rcpt=per_recipient({CAROL: "550 5.1.1 unknown"}))
    send(server.port, to=(BOB, CAROL))
    assert server.accepted[0].forward_paths == [BOB]


def test_steps_are_taken_in_turn_over_connections(peer: StartPeer) -> None:
    """The last step of a sequence stays."""
    server = peer(dot=in_turn("451 4.3.0 later", "250 2.0.0 ok"))
    with pytest.raises(smtplib.SMTPDataError):
        send(server.port)
    send(server.port)
    send(server.port)
    assert [message.accepted for message in server.messages] == [False, True, True]
    assert [message.connection for message in server.messages] == [1, 2, 3]


def test_pipelined_commands_are_answered_in_order(peer: StartPeer) -> None:
    """A group may arrive at once, also with the next MAIL behind the final dot."""
    server = peer(rcpt=per_recipient({CAROL: "450 4.2.1 busy"}))
    group = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n"
    first = group % (b"a@example.com", BOB.encode(), CAROL.encode())
    converse(
        server.port,
        b"EHLO c.example\r\n",
        first,
        b"x\r\n.\r\n" + first,
        b"y\r\n.\r\nQUIT\r\n",
    )
    assert [message.content for message in server.accepted] == [b"x\r\n", b"y\r\n"]
    codes = [command.reply[:3] for command in server.commands]
    assert codes == ["250", *["250", "250", "450", "354", "250"] * 2, "221"]


@pytest.mark.parametrize(
    ("extensions", "parts", "violation"),
    [
        ((), [b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n"], "sent more"),
        (
            EXTENSIONS,
            [b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nx\r\n.\r\n"],
            "sent more",
        ),
        (EXTENSIONS, [b"NOOP\n"], "bare CR or LF"),
        (EXTENSIONS, [b"NOOP " + b"x" * 600 + b"\r\n"], "NOOP line of 607 bytes"),
        (EXTENSIONS, [b"MAIL FROM:<> AUTH=<>\r\n"], "AUTH is not on offer"),
        (
            EXTENSIONS,
            [b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\n"],
            "within a transaction",
        ),
        (EXTENSIONS, ["MAIL FROM:<jörg@example.org>\r\n".encode()], "without SMTPUTF8"),
        (
            EXTENSIONS,
            [b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", b"a\nb\r\n.\r\n"],
            "bare CR or LF in the content",
        ),
        (
            EXTENSIONS,
            [
                b"MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
                b"a\r\n.b\r\n.\r\n",
            ],
            "a single dot",
        ),
    ],
    ids=[
        "pipelining without the offer",
        "content before 354",
        "bare LF",
        "long command line",
        "parameter without the offer",
        "nested MAIL",
        "UTF-8 without SMTPUTF8",
        "bare LF in the content",
        "no dot-stuffing",
    ],
)
def test_what_a_client_must_not_do_is_noted(
    peer: StartPeer, extensions: tuple[str, ...], parts: list[bytes], violation: str
) -> None:
    """A violation is put in words and the conversation goes on."""
    server = peer(lenient=True, extensions=extensions)
    converse(server.port, b"EHLO c.example\r\n", *parts, b"QUIT\r\n")
    assert [text for text in server.violations if violation in text]


@pytest.mark.parametrize(
    "step", [Drop(), ReplyThenDrop("421 4.3.2 bye")], ids=["drop", "421"]
)
def test_a_connection_lost_at_the_dot_leaves_a_message_not_accepted(
    peer: StartPeer, step: Answer
) -> None:
    """The peer has the content, and the client does not know it."""
    server = peer(dot=step)
    with pytest.raises(smtplib.SMTPException):
        send(server.port)
    assert [message.content for message in server.messages] == [CONTENT]
    assert server.accepted == []


def test_a_reset_reaches_the_client_as_such(peer: StartPeer) -> None:
    """RST, not an orderly end."""
    server = peer(mail=Reset())
    with pytest.raises(ConnectionResetError):
        converse(server.port, b"EHLO c.example\r\n", b"MAIL FROM:<>\r\n")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (DropInBody(100_000), (smtplib.SMTPServerDisconnected, ConnectionError)),
        (EarlyReply(10, "552 5.3.4 too big"), smtplib.SMTPDataError),
        (
            EarlyReply(10, "451 4.3.0 no", then_drop=True),
            (smtplib.SMTPException, ConnectionError),
        ),
    ],
    ids=["drop", "early reply", "early reply and drop"],
)
def test_the_peer_can_act_amid_the_content(
    peer: StartPeer,
    body: BodyStep,
    error: type[Exception] | tuple[type[Exception], ...],
) -> None:
    """No such message is accepted."""
    server = peer(body=body)
    with pytest.raises(error):
        send(server.port, b"line\r\n" * 1_000_000)
    assert server.accepted == []


def test_a_stalling_peer_keeps_the_client_waiting(peer: StartPeer) -> None:
    """The client gives up, not the peer."""
    server = peer(rcpt=Stall())
    with smtplib.SMTP("127.0.0.1", server.port, timeout=0.2) as client:
        client.ehlo()
        client.mail(ALICE)
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            client.rcpt(BOB)
        client.close()
    server.wait(lambda: server.open_connections == 0)
    assert server.messages == []


def test_a_reply_can_be_late_or_garbage(peer: StartPeer) -> None:
    """The client must cope."""
    server = peer(mail=Delay(0.05, "250 2.1.0 ok"), rcpt=Garbage())
    replies = converse(
        server.port,
        b"EHLO c.example\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<b@example.org>\r\n",
    )
    mail, rcpt = server.commands[1:]
    assert replies[-1] == Garbage().data
    assert mail.answered_at is not None
    assert mail.answered_at - mail.at >= 0.05
    assert rcpt.reply


def test_starttls_and_auth_are_spoken(peer: StartPeer, tmp_path: Path) -> None:
    """STARTTLS is no longer offered within TLS; the login is kept."""
    certificate = self_signed(tmp_path)
    server = peer(
        tls=certificate.server_context(), extensions=(*EXTENSIONS, "AUTH PLAIN LOGIN")
    )
    trust = ssl.create_default_context(cafile=certificate.certificate)
    with smtplib.SMTP("localhost", server.port, timeout=10) as client:
        client.starttls(context=trust)
        client.login("alice", "secret")
        client.user, client.password = "alice", "other"
        client.auth("LOGIN", client.auth_login)
        client.sendmail(ALICE, BOB, CONTENT)
        assert not client.has_extn("starttls")
    assert server.logins == [("alice", "secret"), ("alice", "other")]
    assert [message.tls for message in server.accepted] == [True]


def test_a_peer_runs_in_the_loop_of_an_asynchronous_test() -> None:
    """Conditions on its records can be awaited."""

    async def run() -> list[bytes | None]:
        async with Peer(Script()) as server:
            sending = asyncio.create_task(asyncio.to_thread(send, server.port))
            await server.until(lambda: len(server.accepted) == 1)
            await sending
            return [message.content for message in server.accepted]

    assert asyncio.run(run()) == [CONTENT]


def test_a_stopped_peer_refuses_and_comes_back_on_its_port(peer: StartPeer) -> None:
    """A primary may go away and return; its records go on."""
    server = peer()
    send(server.port)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        send(server.port)
    server.start()
    send(server.port)
    assert len(server.accepted) == 2


def test_an_error_in_a_scripted_function_is_not_lost(peer: StartPeer) -> None:
    """It becomes a violation, which fails the test that wrote it."""
    server = peer(lenient=True, mail=lambda view: str(view.connection // 0))
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(server.port)
    assert "ZeroDivisionError" in server.violations[0]


def test_many_connections_at_once_are_counted(peer: StartPeer) -> None:
    """The highest number of simultaneous connections is kept."""
    server = peer()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
    server.wait(lambda: server.open_connections == 30)
    for client in clients:
        client.close()
    server.wait(lambda: server.open_connections == 0)
    assert (server.connections, server.max_concurrent) == (30, 30)
