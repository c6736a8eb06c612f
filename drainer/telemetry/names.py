"""Names of spans and attributes: the one list, and the table of docs/traces.md."""

SPANS: dict[str, str] = {
    "drain": "one run, from start to end",
    "health.check": "one stage of the health check",
    "message": "one message, from the scan until every recipient is final; sent once",
    "attempt": "one transaction with the primary; its stages are timed events",
    "smtp.connect": "opening a session, from the address to the last reply",
    "smtp.ehlo": "EHLO and its reply, below smtp.connect",
    "smtp.starttls": "STARTTLS and its handshake, likewise",
    "smtp.auth": "AUTH and its reply, likewise",
    "smtp.forward": "XCLIENT or XFORWARD, its EHLO likewise, and their replies",
    "smtp.mail": "MAIL and its reply",
    "smtp.rcpt": "one RCPT and its reply",
    "smtp.data": "DATA and its reply",
    "smtp.dot": "the final dot and its reply",
    "classify": "one decision about one recipient",
    "throttle.wait": "how long the message waited for the rate, an event",
    "throttle.*": "the allowed rate moved: narrow, widen, set, pause or resume",
    "breaker.*": "the circuit breaker moved: to closed, paused or open",
    "watch": "one watch, from start to end",
    "watch.*": "the watch changed its state: to down, probing, canary, ramp, cruise,"
    " waiting, done or armed",
    "bounce.send": "one attempt to send a report to a sender",
    "source.acknowledge": "the source removed the message or marked it done",
    "operator.*": "an operator's verb",
    "control.*": "an override for a route's drains and watch: a rate, a pause, up",
}
"""name -> meaning. A stage is a span of its own when the attempt did not simply
deliver; otherwise it is an event of the same name on the attempt."""

MESSAGE_ID = "drainer.message"
NATIVE_ID = "drainer.native_id"
SOURCE = "drainer.source"
QUEUE = "drainer.queue"
SIZE = "drainer.size"
RULE = "drainer.rule"
VERDICT = "drainer.verdict"
STATE = "drainer.state"
REPLY = "drainer.reply"
RECIPIENT = "drainer.recipient"
SENDER = "drainer.sender"
RUN = "drainer.run"
EVIDENCE = "drainer.evidence."
SERVER = "server.address"

ATTRIBUTES: dict[str, str] = {
    MESSAGE_ID: "the drainer id",
    NATIVE_ID: "the backup's own name for the message",
    SOURCE: "URL of the source",
    QUEUE: "the part of the spool",
    SIZE: "bytes of the content, with CRLF",
    RULE: "the rule that decided",
    VERDICT: "deliver, retry, retry-long, bounce, hold, stop, unknown",
    STATE: "the recipient's state afterwards",
    REPLY: "the primary's words",
    RECIPIENT: 'forward-path; a keyed hash unless [telemetry] addresses = "plain"',
    SENDER: "reverse-path; hashed likewise",
    RUN: "id of the run",
    EVIDENCE + "*": "what the decision is based on, a value each",
    SERVER: "address and port of the primary",
}
"""attribute -> meaning."""
