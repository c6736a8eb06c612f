"""The envelope from trace fields: whom to trust, what to send to, what to strip."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import TRACE_OPTIONS, Trace, cut, read_trace

RECEIVED = (
    "Received: from client.example (client.example [192.0.2.7])\n"
    "\tby mx2.backup.example (Postfix) with ESMTP id 2878E21E2F1\n"
    "\tfor <asked@primary.example>; Mon, 23 Nov 2026 17:06:59 +0000 (UTC)\n"
)
BODY = "From: a@example.com\nTo: nobody@elsewhere.example\nSubject: hi\n\nbody\n"
OURS = TraceRules(backup_host="MX2.backup.example.")


def read(head: str, rules: TraceRules = TraceRules(), from_line: bytes = b"") -> Trace:  # noqa: B008
    """Read a header section written as text."""
    octets = head.encode("utf-8", "surrogateescape")
    return read_trace(octets, rules, from_line=from_line)


def paths(trace: Trace) -> list[str]:
    """Return the forward paths."""
    return [each.forward_path for each in trace.envelope.recipients]


def left(head: str, rules: TraceRules = TraceRules()) -> str:  # noqa: B008
    """Return the message without what is stripped."""
    octets = head.encode()
    ranges = read_trace(octets, rules).stripped
    return b"".join(cut(iter([octets]), ranges)).decode()


# ---- recipients


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("X-Original-To: x@p.org\nDelivered-To: d@p.org\n", ["x@p.org"]),
        ("Delivered-To: d@p.org\nX-Original-To: x@p.org\n", ["x@p.org"]),
        ("Delivered-To: d@p.org\nEnvelope-To: e@p.org\n", ["d@p.org"]),
        ("Envelope-To: a@p.org, b@p.org,a@p.org\n", ["a@p.org", "b@p.org"]),
        (
            "X-Envelope-To: <a@p.org>\nX-Envelope-To: <b@p.org>\n",
            ["a@p.org", "b@p.org"],
        ),
        ('Envelope-To: "a,b"@p.org, c@p.org\n', ['"a,b"@p.org', "c@p.org"]),
        ("Delivered-To:\n\td@p.org\n", ["d@p.org"]),
        ("DELIVERED-TO : d@p.org\n", ["d@p.org"]),
        ("X-RCPT-TO: r@p.org\n", ["r@p.org"]),
        ("Original-Recipient: rfc822;o@p.org\n", ["o@p.org"]),
        ("Delivered-To: unknown\nEnvelope-To: e@p.org\n", ["e@p.org"]),
        ("Delivered-To: jörg@p.org\n", ["jörg@p.org"]),
    ],
)
def test_recipients_come_from_the_best_field_above_received(
    fields: str, expected: list[str]
) -> None:
    """What the client asked for, before what aliases made of it, before the rest."""
    trace = read(f"Return-Path: <s@e.com>\n{fields}{RECEIVED}{BODY}")
    assert paths(trace) == expected
    assert trace.problem is None


def test_to_and_cc_are_never_recipients() -> None:
    """They are the author's text."""
    trace = read(f"Return-Path: <s@e.com>\nTo: t@p.org\nCc: c@p.org\n{RECEIVED}{BODY}")
    assert trace.envelope.recipients == ()
    assert trace.problem is not None
    assert trace.problem.code == "no-envelope"


def test_fields_below_received_are_the_clients() -> None:
    """Anyone can send a Delivered-To; it stays below the server's own Received."""
    trace = read(
        f"Return-Path: <s@e.com>\nDelivered-To: real@p.org\n{RECEIVED}"
        f"X-Original-To: forged@p.org\nReturn-Path: <forged@e.com>\n{BODY}"
    )
    assert paths(trace) == ["real@p.org"]
    assert trace.envelope.reverse_path == "s@e.com"


def test_fields_above_another_hosts_received_count_when_the_backup_is_named() -> None:
    """With backup_host, what later hops put on top is trusted as well."""
    lmtp = "Received: from mx2 by store.backup.example with LMTP\n\tid x; Mon\n"
    head = f"{lmtp}X-Original-To: x@p.org\nReturn-Path: <s@e.com>\n{RECEIVED}{BODY}"
    assert paths(read(head, OURS)) == ["x@p.org"]
    assert paths(read(head)) == []


def test_without_the_named_backup_nothing_is_trusted() -> None:
    """A host that is not in the trace did not write it."""
    head = f"Return-Path: <s@e.com>\nX-Original-To: x@p.org\n{RECEIVED}{BODY}"
    trace = read(head, TraceRules(backup_host="other.example"))
    assert trace.envelope.recipients == ()
    assert trace.stripped == ()
    assert trace.problem is not None
    assert "other.example" in trace.problem.detail


def test_the_for_clause_of_the_backup_names_the_recipient() -> None:
    """It is there for single recipients, and it is the last resort."""
    head = f"Return-Path: <s@e.com>\n{RECEIVED}{BODY}"
    assert paths(read(head, OURS)) == ["asked@primary.example"]
    assert paths(read(f"X-Original-To: x@p.org\n{head}", OURS)) == ["x@p.org"]


@pytest.mark.parametrize(
    "received",
    [
        (
            "Received: from [192.0.2.7] (helo=client)\n"
            "\tby mx2.backup.example with esmtp (Exim 4.96)\n"
            "\t(envelope-from <s@e.com>)\n\tid 1xVXY1-0005y3-2M\n"
            "\tfor asked@primary.example;\n\tMon, 23 Nov 2026 17:00:00 +0000\n"
        ),
        (
            "Received: from c by mx2.backup.example (8.17/8.17) with ESMTP id x"
            " for <asked@primary.example>; Mon, 23 Nov 2026 17:00:00 GMT\n"
        ),
        (
            "Received: by mx2.backup.example (Postfix, from userid 0)\n"
            "\tid 6647D21E2B2 for <asked@primary.example>; Mon, 23 Nov 2026\n"
        ),
    ],
    ids=["Exim", "one line", "local"],
)
def test_received_fields_of_several_servers_are_understood(received: str) -> None:
    """The by and for clauses, however they are folded."""
    trace = read(f"Return-Path: <s@e.com>\n{received}{BODY}", OURS)
    assert paths(trace) == ["asked@primary.example"]


@pytest.mark.parametrize(
    "helo",
    [
        "x by evil.example for <victim@primary.example>;",
        "x (",
        "x by mx2.backup.example for <victim@primary.example>; (",
        '"',
    ],
)
def test_a_helo_name_cannot_forge_the_backups_received(helo: str) -> None:
    """HELO may hold blanks and brackets, but never the line break before by."""
    received = RECEIVED.replace("from client.example", f"from {helo}")
    trace = read(f"Return-Path: <s@e.com>\n{received}{BODY}", OURS)
    assert paths(trace) == ["asked@primary.example"]


def test_without_any_received_only_the_leading_run_counts() -> None:
    """An author may write a whole header; a delivery agent puts its fields on top."""
    head = "Return-Path: <s@e.com>\nDelivered-To: d@p.org\nSubject: x\n"
    assert paths(read(f"{head}X-Original-To: forged@p.org\n{BODY}")) == ["d@p.org"]
    assert paths(read(f"Subject: x\n{head}{BODY}")) == []


def test_a_configured_field_is_the_only_one() -> None:
    """Whoever names a field knows his backup; nothing else is guessed at."""
    rules = TraceRules(recipient_header="X-Real-To")
    head = (
        f"Return-Path: <s@e.com>\nX-Real-To: r@p.org\nDelivered-To: d@p.org\n{RECEIVED}"
    )
    assert paths(read(head + BODY, rules)) == ["r@p.org"]
    assert paths(read(f"Delivered-To: d@p.org\n{RECEIVED}{BODY}", rules)) == []


def test_the_virtualdomain_prefix_is_taken_off_on_request() -> None:
    """A qmail host writes alias-user@domain for user@domain."""
    head = f"Return-Path: <s@e.com>\nDelivered-To: alias-u@p.org\n{RECEIVED}{BODY}"
    assert paths(read(head, TraceRules(strip_prefix="alias-"))) == ["u@p.org"]
    assert paths(read(head)) == ["alias-u@p.org"]


@pytest.mark.parametrize(
    "value", ["bob", "a@c org", "a\rb@c.org", "\udcff@c.org", "a\x1b@c.org"]
)
def test_an_unusable_recipient_holds_itself(value: str) -> None:
    """Its fault is named, and the usable ones stay listed."""
    head = f"Return-Path: <>\nDelivered-To: {value}\nDelivered-To: d@p.org\n{RECEIVED}"
    trace = read(head + BODY)
    assert trace.problem is None
    assert [bool(each.fault) for each in trace.envelope.recipients] == [True, False]
    assert paths(trace)[1:] == ["d@p.org"]


# ---- sender


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Return-Path: <s@e.com>\n", "s@e.com"),
        ("Return-Path: s@e.com\n", "s@e.com"),
        ("Return-Path: <>\n", ""),
        ("Return-Path: <MAILER-DAEMON>\n", ""),
        ("X-Envelope-From: s@e.com\n", "s@e.com"),
        ("X-Envelope-From: other@e.com\nReturn-Path: <s@e.com>\n", "s@e.com"),
    ],
)
def test_the_sender_comes_from_return_path_first(field: str, expected: str) -> None:
    """The null sender stays the null sender."""
    trace = read(f"{field}Delivered-To: d@p.org\n{RECEIVED}{BODY}")
    assert trace.envelope.reverse_path == expected
    assert trace.problem is None


def test_the_from_line_is_the_last_resort() -> None:
    """An mbox From_ line, given apart or still on top; MAILER-DAEMON is null."""
    head = f"Delivered-To: d@p.org\n{RECEIVED}{BODY}"
    line = "From s@e.com Mon Nov 23 17:06:59 2026\n"
    assert read(line + head).envelope.reverse_path == "s@e.com"
    assert read(head, from_line=line.encode()).envelope.reverse_path == "s@e.com"
    null = read(head, from_line=b"From MAILER-DAEMON Mon Nov 23 17:06:59 2026\n")
    assert (null.envelope.reverse_path, null.problem) == ("", None)


def test_an_unknown_sender_is_not_the_null_sender() -> None:
    """From is the author's; without a record of the sender the message is held."""
    trace = read(f"Delivered-To: d@p.org\n{RECEIVED}{BODY}")
    assert trace.problem is not None
    assert trace.problem.code == "no-envelope"


@pytest.mark.parametrize("line", ["From \n", "From - Mon Nov 23 17:06:59 2026\n"])
def test_a_from_line_without_a_sender_names_none(line: str) -> None:
    """The null sender is only taken where a field or a word says so."""
    trace = read(f"{line}Delivered-To: d@p.org\n{RECEIVED}{BODY}")
    assert trace.problem is not None
    assert trace.problem.code == "no-envelope"


def test_an_empty_return_path_names_no_sender() -> None:
    """Only ``<>`` is the null sender."""
    trace = read(f"Return-Path:\nDelivered-To: d@p.org\n{RECEIVED}{BODY}")
    assert trace.problem is not None
    assert trace.problem.code == "no-envelope"


# ---- one delivery

QUARANTINE = "Return-Path: <>\nDelivered-To: spam-quarantine@mx2.example\n"
BOTH = ["u@p.org", "v@p.org"]
FILTER = "X-Envelope-From: <s@e.com>\nX-Envelope-To: <u@p.org>,\n\t<v@p.org>\n"


@pytest.mark.parametrize("head", [QUARANTINE + FILTER, FILTER + QUARANTINE])
@pytest.mark.parametrize(
    ("rules", "sender", "expected"),
    [
        (TraceRules(recipient_header="X-Envelope-To"), "s@e.com", BOTH),
        (TraceRules(sender_header="x-envelope-from"), "s@e.com", BOTH),
        (
            TraceRules(sender_header="Return-Path", recipient_header="X-Envelope-To"),
            "",
            BOTH,
        ),
        (
            TraceRules(recipient_header="Delivered-To"),
            "",
            ["spam-quarantine@mx2.example"],
        ),
    ],
)  # fmt: skip
def test_sender_and_recipients_come_from_one_delivery(
    head: str, rules: TraceRules, sender: str, expected: list[str]
) -> None:
    """Named fields outrank those of a later local delivery, in any order."""
    trace = read(head + RECEIVED + BODY, rules)
    assert (trace.envelope.reverse_path, paths(trace), trace.problem) == (
        sender,
        expected,
        None,
    )
    assert left(head + RECEIVED + BODY, rules) == RECEIVED + BODY


def test_two_deliveries_that_differ_are_a_problem_with_a_remedy() -> None:
    """Nobody guesses which of them the backup accepted."""
    for other in ("spam-quarantine@mx2.example", "spam-quarantine", "u@p.org"):
        head = f"Return-Path: <>\nDelivered-To: {other}\n{FILTER}{RECEIVED}{BODY}"
        problem = read(head).problem
        assert problem is not None
        assert problem.code == "no-envelope"
        assert "recipient_header" in problem.detail
    same = "Return-Path: <s@e.com>\nDelivered-To: v@p.org\nDelivered-To: u@p.org\n"
    assert read(same + FILTER + RECEIVED + BODY).problem is None


def test_two_return_paths_that_differ_are_a_problem() -> None:
    """A message was delivered twice, and no Received is between."""
    twice = f"{QUARANTINE}Return-Path: <s@e.com>\nDelivered-To: u@p.org\n"
    problem = read(twice + RECEIVED + BODY).problem
    assert problem is not None
    assert "Return-Path" in problem.detail
    assert read(2 * QUARANTINE + RECEIVED + BODY).problem is None


def test_a_null_sender_of_another_delivery_is_not_taken() -> None:
    """X-Envelope-To alone: the null Return-Path belongs to the Delivered-To."""
    rules = TraceRules(recipient_header="X-Envelope-To")
    head = f"{QUARANTINE}X-Envelope-To: u@p.org\n{RECEIVED}{BODY}"
    problem = read(head, rules).problem
    assert problem is not None
    assert problem.code == "no-envelope"
    alone = f"Return-Path: <>\nX-Envelope-To: u@p.org\n{RECEIVED}{BODY}"
    assert read(alone, rules).problem is None


def test_a_named_sender_field_is_the_only_one() -> None:
    """Without it no other field names the sender, nor a From_ line."""
    rules = TraceRules(sender_header="X-Real-From")
    head = f"Delivered-To: d@p.org\n{RECEIVED}{BODY}"
    trace = read(f"X-Real-From: <r@e.com>\nReturn-Path: <s@e.com>\n{head}", rules)
    assert (trace.envelope.reverse_path, paths(trace)) == ("r@e.com", ["d@p.org"])
    line = b"From s@e.com Mon Nov 23 17:06:59 2026\n"
    problem = read(f"Return-Path: <s@e.com>\n{head}", rules, from_line=line).problem
    assert problem is not None
    assert "no sender" in problem.detail


def test_the_block_next_to_the_backups_received_counts() -> None:
    """A later hop delivered it to a mailbox of its own."""
    later = f"{QUARANTINE}Received: from mx2 by store.example\n\tid x; Mon\n"
    head = f"{later}Return-Path: <s@e.com>\nX-Original-To: u@p.org\n{RECEIVED}{BODY}"
    trace = read(head, OURS)
    assert (trace.envelope.reverse_path, paths(trace)) == ("s@e.com", ["u@p.org"])
    assert left(head, OURS).startswith("Received: from mx2 by store.example")


# ---- Exchange's replay directory

REPLAY = (
    "X-Receiver: <c@p.org> NOTIFY=NEVER ORCPT=rfc822;c+2B1@p.org\n"
    "X-Sender: <a@e.com> BODY=8BITMIME ENVID=x+3D1 RET=HDRS AUTH=<>\n"
    "X-CreatedBy: MSExchange15\nX-HeloDomain: c.example\n"
    "X-EndOfInjectedXHeaders: 1402\n"
)


def test_a_replay_file_of_exchange_is_read_with_its_parameters() -> None:
    """None of its fields is sent."""
    trace = read(REPLAY + RECEIVED + BODY)
    assert trace.problem is None
    envelope = trace.envelope
    assert (envelope.reverse_path, envelope.body) == ("a@e.com", "8bit")
    assert (envelope.envid, envelope.ret) == ("x=1", "HDRS")
    (recipient,) = envelope.recipients
    assert (recipient.forward_path, recipient.notify) == ("c@p.org", ("NEVER",))
    assert recipient.orcpt == "rfc822;c+1@p.org"
    assert left(REPLAY + RECEIVED + BODY) == RECEIVED + BODY
    assert left(REPLAY + BODY) == BODY


def test_x_sender_is_a_field_of_clients_elsewhere() -> None:
    """It neither names the sender nor extends what is trusted."""
    top = "Return-Path: <s@e.com>\nDelivered-To: d@p.org\n"
    client = "X-Sender: a@e.com\nX-Receiver: forged@p.org\n"
    trace = read(top + client + BODY)
    assert (trace.envelope.reverse_path, paths(trace)) == ("s@e.com", ["d@p.org"])
    assert left(top + client + BODY) == client + BODY


def test_a_named_x_receiver_brings_its_x_sender() -> None:
    """Also in a file that starts with another field; neither is sent."""
    head = "X-Spool: 1\nX-Sender: a@e.com\nX-Receiver: c@p.org\n"
    rules = TraceRules(recipient_header="X-Receiver")
    trace = read(head + RECEIVED + BODY, rules)
    assert (trace.envelope.reverse_path, paths(trace)) == ("a@e.com", ["c@p.org"])
    assert left(head + RECEIVED + BODY, rules) == f"X-Spool: 1\n{RECEIVED}{BODY}"


# ---- stripping


def test_delivery_fields_are_stripped_in_the_trusted_block_only() -> None:
    """A left-over Delivered-To bounces as a loop; older ones may be signed."""
    head = (
        "From s@e.com Mon Nov 23 17:06:59 2026\nReturn-Path: <s@e.com>\n"
        "X-Original-To:\n x@p.org\nX-Spam: no\nDelivered-To: d@p.org\n"
        "Envelope-To: e@p.org\nDelivery-Date: Mon\nX-Envelope-Sender: s\n"
    )
    below = f"{RECEIVED}Delivered-To: old@p.org\nReturn-Path: <old@e.com>\n{BODY}"
    assert left(head + below) == f"X-Spam: no\n{below}"


def test_a_message_that_is_all_header_is_read() -> None:
    """No blank line, no final newline."""
    trace = read("Return-Path: <s@e.com>\nDelivered-To: d@p.org")
    assert paths(trace) == ["d@p.org"]
    assert left("Return-Path: <s@e.com>\nDelivered-To: d@p.org") == ""


@given(
    st.binary(max_size=80),
    st.lists(st.integers(0, 80), max_size=6, unique=True),
    st.integers(1, 20),
)
def test_cutting_does_not_depend_on_chunks(
    data: bytes, edges: Sequence[int], every: int
) -> None:
    """Ranges may span chunks and chunks ranges."""
    edges = sorted(min(edge, len(data)) for edge in edges)
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    kept = bytes(
        octet
        for index, octet in enumerate(data)
        if not any(start <= index < end for start, end in ranges)
    )
    chunks = (data[i : i + every] for i in range(0, len(data), every))
    assert b"".join(cut(chunks, ranges)) == kept


@given(st.binary(max_size=300), st.sampled_from(["", "mx2.backup.example"]))
def test_arbitrary_headers_never_crash(head: bytes, host: str) -> None:
    """Any bytes give a trace; its ranges lie in order within the header."""
    rules = TraceRules(backup_host=host)
    for text in (head, b"Delivered-To:" + head, b"Received:" + head):
        trace = read_trace(text, rules)
        str(trace).encode()
        edges = [edge for pair in trace.stripped for edge in pair]
        assert edges == sorted(edges)
        assert not edges or edges[-1] <= len(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "value",
    ['"\\' * 200_000, "(" * 400_000, "a," * 200_000, "<" * 400_000, " by" * 130_000],
)
def test_hostile_values_are_read_in_linear_time(value: str) -> None:
    """Half a megabyte of quotes or brackets stalls nobody."""
    read(f"Delivered-To: {value}\nReceived: {value}\n{BODY}")
    read(f"Received: from a by mx2.backup.example for {value}\n{BODY}", OURS)


def test_each_option_is_a_rule() -> None:
    """So a source passes its options on as they are."""
    rules = TraceRules(**dict.fromkeys(TRACE_OPTIONS, "x"))
    assert set(TRACE_OPTIONS) == set(TraceRules.__struct_fields__)
    assert rules.sender_header == "x"
