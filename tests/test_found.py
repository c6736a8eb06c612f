"""Who changes a module finds its tests: by its name, or in the table below."""

from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.rows import every_row
from tests.test_layers import MODULES

#: Modules (or packages) without a test file of their own name, and what drives them.
#: The longest match counts.
DRIVEN_BY: Final = {
    "__main__": "integration/cli/test_bad_input.py",
    "errors": "integration/cli/test_bad_input.py",
    "bounce": "integration/bounce/test_reports.py",
    "bounce.evidence": "integration/bounce/evidence/test_gather.py",
    "bounce.evidence.client": "security/test_evidence_process.py",
    "bounce.evidence.dkim_sign": "integration/bounce/test_reports_postfix.py",
    "bounce.evidence.shared_dns": "security/test_slow_dns.py",
    "bounce.evidence.tasks": "security/test_evidence_process.py",
    "bounce.evidence.worker": "security/test_evidence_process.py",
    "bounce.quarantine": "integration/bounce/test_quarantine.py",
    "bounce.quarantine.delivery_copies": "integration/cli/test_replay.py",
    "cli": "integration/cli/test_bad_input.py",
    "cli.bounces": "integration/bounce/test_reports.py",
    "cli.digest": "integration/watch/test_digest.py",
    "cli.doctor": "integration/doctor/test_doctor.py",
    "cli.filters": "integration/delivery/test_selector.py",
    "cli.hook": "integration/watch/test_watch.py",
    "cli.inspect": "integration/delivery/test_selector.py",
    "cli.ledger": "integration/ledger/test_maintenance.py",
    "cli.notify": "integration/watch/test_notify.py",
    "cli.overrides": "integration/delivery/pacing/test_controller.py",
    "cli.pending_bounces": "integration/bounce/test_reports.py",
    "cli.quarantine": "acceptance/test_quarantine.py",
    "cli.spool": "integration/sources/test_spool.py",
    "cli.spool_advice": "integration/sources/test_spool.py",
    "cli.status": "integration/ledger/test_status.py",
    "cli.throttle": "integration/delivery/pacing/test_controller.py",
    "cli.watch": "integration/watch/test_watch.py",
    "cli.why": "acceptance/test_explained.py",
    "config": "unit/config/test_config.py",
    "config.trust": "security/test_whose_configuration.py",
    "delivery": "integration/smtp/test_stages.py",
    "delivery.breaker": "acceptance/test_refusals.py",
    "delivery.census": "integration/delivery/test_census.py",
    "delivery.content_scan": "integration/delivery/content_scan/test_clamd.py",
    "delivery.holds": "integration/sources/test_postfix_live.py",
    "delivery.leases": "acceptance/test_database_spool.py",
    "delivery.pacing": "integration/delivery/pacing/test_controller.py",
    "delivery.scanner": "contract/test_damage.py",
    "delivery.source_claims": "security/test_one_ledger.py",
    "doctor": "integration/doctor/test_doctor.py",
    "doctor.checks": "unit/doctor/test_checks.py",
    "ledger": "contract/test_ledger.py",
    "ledger.callouts": "integration/cli/test_census.py",
    "ledger.backup": "integration/ledger/test_maintenance.py",
    "ledger.breaker_waits": "contract/test_ledger_breakers.py",
    "ledger.breakers": "contract/test_ledger_breakers.py",
    "ledger.integrity": "integration/ledger/test_maintenance.py",
    "ledger.known_messages": "security/test_identity.py",
    "ledger.notices": "integration/watch/test_notify.py",
    "ledger.overrides": "integration/delivery/pacing/test_controller.py",
    "ledger.query": "integration/ledger/test_status.py",
    "ledger.query.drain_report": "integration/cli/test_report.py",
    "ledger.query.quarantine": "acceptance/test_quarantine.py",
    "ledger.query.selection": "integration/delivery/test_selector.py",
    "ledger.reports": "contract/test_ledger_reports.py",
    "ledger.retention": "integration/ledger/test_maintenance.py",
    "ledger.reserve": "security/test_ledger_lost.py",
    "ledger.scan_answers": "integration/delivery/content_scan/test_clamd.py",
    "ledger.transitions": "contract/test_ledger.py",
    "ledger.unknown_recipients": "integration/delivery/test_census.py",
    "ledger.watch_log": "integration/watch/test_watch.py",
    "ledger.write_probe": "integration/doctor/test_doctor.py",
    "ledger.writer": "acceptance/test_kill.py",
    "mail.dsn": "unit/mail/test_dsn.py",
    "mail.header": "unit/mail/test_list_markers.py",
    "mail.message": "contract/test_sources.py",
    "mail.reply_codes": "unit/policy/classify/test_classifier.py",
    "policy.admission.identity": "security/test_identity.py",
    "policy.bounce": "unit/policy/bounce/test_decision.py",
    "policy.breaker.history": "unit/policy/breaker/test_registry.py",
    "policy.census.existence": "unit/policy/census/test_address_table.py",
    "policy.classify": "unit/policy/classify/test_classifier.py",
    "policy.recipient.delivery": "unit/policy/recipient/test_judge.py",
    "policy.watch.states": "unit/policy/watch/test_machine.py",
    "runtime": "integration/runtime/test_workers.py",
    "runtime.databases": "integration/ledger/test_databases.py",
    "runtime.file_rights": "security/test_foreign_folders.py",
    "runtime.folders": "security/test_foreign_folders.py",
    "runtime.host_limits": "security/test_host_limits.py",
    "runtime.ipc": "security/test_evidence_process.py",
    "runtime.owned_sqlite": "security/test_foreign_folders.py",
    "runtime.private_files": "security/test_foreign_folders.py",
    "runtime.public_suffixes": "integration/bounce/evidence/test_gather.py",
    "runtime.redaction": "security/test_secrets.py",
    "smtp": "integration/smtp/test_stages.py",
    "smtp.post": "integration/bounce/test_relay.py",
    "smtp.tls": "security/test_tls.py",
    "sources.archive": "integration/sources/test_archive.py",
    "sources.archive.compression": "integration/sources/test_maildir.py",
    "sources.common.trace_envelope": "unit/sources/common/test_trace_headers.py",
    "sources.common": "contract/test_sources.py",
    "sources.common.claim": "security/test_one_ledger.py",
    "sources.common.marker": "security/test_marker.py",
    "sources.common.marker_index": "integration/ledger/test_maintenance.py",
    "sources.database": "integration/sources/test_database.py",
    "sources.eml": "integration/sources/test_eml.py",
    "sources.exim": "integration/sources/test_exim.py",
    "sources.exim.configuration": "integration/sources/test_exim_configuration.py",
    "sources.haraka": "integration/sources/test_haraka.py",
    "sources.maildir": "integration/sources/test_maildir.py",
    "sources.mbox": "integration/sources/test_mbox.py",
    "sources.opensmtpd": "integration/sources/test_opensmtpd.py",
    "sources.postcat": "integration/sources/test_postcat.py",
    "sources.common.hold_outcome": "integration/sources/test_spool.py",
    "sources.exim.settlement": "integration/sources/test_exim_settled.py",
    "sources.postfix": "integration/sources/test_postfix.py",
    "sources.postfix.hold": "integration/sources/test_postfix_live.py",
    "sources.postfix.instance": "integration/sources/test_postfix_live.py",
    "sources.postfix.live": "integration/sources/test_postfix_live.py",
    "sources.postfix.master": "integration/sources/test_postfix_live.py",
    "sources.postfix.original": "integration/sources/test_spool.py",
    "sources.protocol": "contract/test_sources.py",
    "sources.qmail": "integration/sources/test_qmail.py",
    "sources.registry": "contract/test_registry.py",
    "sources.recipients": "integration/cli/test_census.py",
    "sources.sendmail": "integration/sources/test_sendmail.py",
    "smtp.callout": "integration/delivery/test_callout.py",
    "telemetry": "acceptance/test_explained.py",
    "telemetry.otlp_metrics": "integration/watch/test_collector_metrics.py",
    "watch": "integration/watch/test_watch.py",
    "watch.http": "integration/watch/http/test_read_routes.py",
    "watch.http.acceptor": "security/test_hook_crowd.py",
    "watch.http.operator_routes": "integration/watch/http/test_watch.py",
    "watch.http.timeouts": "security/test_hook_crowd.py",
    "watch.metrics": "deploy/test_metrics.py",
    "watch.notify": "integration/watch/test_notify.py",
    "watch.ledger_facts": "integration/watch/test_textfile.py",
}

TESTS: Final = ROOT / "tests"
FILES: Final = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
#: Modules, not packages.
PLAIN: Final = [
    module.removeprefix("drainer.")
    for module, path in MODULES.items()
    if path.name != "__init__.py"
]


def own_tests(module: str) -> list[Path]:
    """Return the test files of a module's name, in folders of its package's name."""
    package, stem = module.split(".", maxsplit=1)[0], module.rpartition(".")[2]
    return [
        path
        for path in FILES
        if path.name == f"test_{stem}.py" and package in path.parts
    ]


def driver(module: str) -> str | None:
    """Return the row of the table for a module: the longest match."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in DRIVEN_BY), None)


@every_row(PLAIN)
def test_a_module_has_tests_that_can_be_found(module: str) -> None:
    """A test file of its name, or a row of the table."""
    assert own_tests(module) or driver(module), f"{module}: add a row to DRIVEN_BY"


@every_row(DRIVEN_BY)
def test_a_row_of_the_table_is_needed_and_right(name: str) -> None:
    """It names a file, and some module that has no test file of its own name."""
    assert (TESTS / DRIVEN_BY[name]).is_file()
    assert [m for m in PLAIN if driver(m) == name and not own_tests(m)]
