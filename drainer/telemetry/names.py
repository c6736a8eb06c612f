"""Names of spans and attributes: the one list, and the tables of docs/traces.md."""

SPANS: dict[str, str] = {
    "drain": "one run, from start to end; of a killed run, until its last record",
    "drain.start": "the start of a run",
    "health.check": "one stage of the health check",
    "message": "one message, from the scan until every recipient is final; sent once",
    "scanned": "the scan of a message that is not final yet",
    "attempt": "one transaction with the primary; its stages are timed events",
    "smtp.connect": "opening a session, from the address to the last reply",
    "smtp.ehlo": "EHLO and its reply, below smtp.connect",
    "smtp.starttls": "STARTTLS and its handshake, likewise",
    "smtp.auth": "AUTH and its reply, likewise",
    "smtp.forward": "XCLIENT or XFORWARD, its EHLO likewise, and their replies",
    "smtp.mail": "MAIL and its reply",
    "smtp.rcpt": "one RCPT and its reply",
    "smtp.data": "DATA and its reply",
    "smtp.body": "the content, if the primary replied or was lost meanwhile",
    "smtp.dot": "the final dot and its reply",
    "smtp.rset": "RSET and its reply",
    "smtp.quit": "QUIT and its reply",
    "classify": "one decision about one recipient",
    "throttle.wait": "how long the message waited for the rate, an event",
    "content.scan": "what scanners said of the content, an event",
    "died": "the process that made the attempt ended, an event",
    "reserve": "the reserve of a run shows the outcome of the attempt, an event",
    "throttle.*": "the allowed rate moved: narrow, widen, set, pause or resume",
    "breaker.*": "the circuit breaker moved (closed, paused, open), asked a canary, or"
    " found a host or a brake",
    "watch.*": "the watch was in a state: down, probing, canary, ramp, cruise, waiting,"
    " done or armed; sent when the state ends",
    "bounce.decide": "the bounce rules decided about the sender of a recipient",
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
RULE = "drainer.rule"
VERDICT = "drainer.verdict"
STATE = "drainer.state"
REPLY = "drainer.reply"
CODE = "drainer.smtp.code"
ENHANCED = "drainer.smtp.enhanced_code"
RECIPIENT = "drainer.recipient"
SENDER = "drainer.sender"
DOMAINS = "drainer.domains"
RECIPIENTS = "drainer.recipients."
VERDICTS = "drainer.verdicts."
ATTEMPTS = "drainer.attempts"
AGE = "drainer.age_seconds"
RUN = "drainer.run"
ROUTE = "drainer.route"
EXIT = "drainer.exit"
MESSAGES = "drainer.messages"
BYTES = "drainer.bytes"
RATE = "drainer.messages_per_second"
COMMITS = "drainer.commits"
VERSION = "drainer.version"
REHEARSAL = "drainer.rehearsal"
TRUNCATED = "drainer.truncated"
WAIT = "drainer.wait_seconds"
EVIDENCE = "drainer.evidence."

SERVER, SERVER_PORT = "server.address", "server.port"
PEER, PEER_PORT = "network.peer.address", "network.peer.port"
PROTOCOL = "network.protocol.name"
TLS_ESTABLISHED, TLS_VERSION = "tls.established", "tls.protocol.version"
TLS_CIPHER = "tls.cipher"
ERROR_TYPE = "error.type"
SYSTEM, OPERATION = "messaging.system", "messaging.operation.type"
MESSAGING_ID = "messaging.message.id"
BODY_SIZE = "messaging.message.body.size"

ATTRIBUTES: dict[str, str] = {
    MESSAGE_ID: "the drainer id",
    NATIVE_ID: "the backup's own name for the message",
    SOURCE: "URL of the source",
    QUEUE: "the part of the spool",
    RULE: "the rule that decided",
    VERDICT: "deliver, retry, retry-long, bounce, hold, stop, unknown",
    STATE: "the state afterwards; of a message the worst of its recipients' states",
    REPLY: "the primary's words; the addresses in them as [telemetry] addresses says",
    CODE: "the code of the reply, a number",
    ENHANCED: "the enhanced code of the reply",
    RECIPIENT: 'forward-path; a keyed hash unless [telemetry] addresses = "plain"',
    SENDER: "reverse-path; hashed likewise",
    DOMAINS: "the domains of the recipients; hashed likewise",
    RECIPIENTS + "*": "how many recipients: total, and a number for each state",
    VERDICTS
    + "*": "how many recipients of an attempt got a verdict, if it had several",
    ATTEMPTS: "how many attempts the recipient with the most of them took",
    AGE: "seconds from the arrival at the backup to the last delivery",
    RUN: "id of the run",
    ROUTE: "the route of the attempt, the connection or the decision; of a run all",
    EXIT: "exit status of the run",
    MESSAGES: "messages that the run sent",
    BYTES: "bytes that the run sent",
    RATE: "messages that the run sent in a second, on average",
    COMMITS: "transactions of the run in the ledger",
    VERSION: "the drainer that made the run",
    REHEARSAL: "true for a rehearsal; also in the resource",
    TRUNCATED: "the span was too large for the collector; this says what is missing",
    WAIT: "seconds that the message waited for the rate",
    EVIDENCE + "*": "what the decision is based on, a value each",
    SERVER: "the primary's name or address, without the port",
    SERVER_PORT: "the primary's port",
    PEER: "the address that the session was opened to",
    PEER_PORT: "its port",
    PROTOCOL: "smtp or lmtp",
    TLS_ESTABLISHED: "whether the session is encrypted",
    TLS_VERSION: "the version of TLS, as in 1.3",
    TLS_CIPHER: "the cipher suite",
    ERROR_TYPE: "why the status is ERROR: the state, the rule, or how the run ended",
    SYSTEM: "always smtp",
    OPERATION: "always send",
    MESSAGING_ID: "the Message-ID; hashed likewise",
    BODY_SIZE: "bytes of the content, with CRLF",
}
"""attribute -> meaning."""

RESOURCE: dict[str, str] = {
    "service.name": "drainer",
    "service.version": "the version of the drainer that exports",
    "service.instance.id": "the ledger, as a UUID",
    "host.name": "the host that exports",
    REHEARSAL: "true for a rehearsal",
}
"""attribute of the resource -> meaning; the environment may set each, and more."""
