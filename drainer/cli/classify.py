"""`classify`: which rule a reply would match, and why."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.cli.options import ConfigOption, JsonOption, load
from drainer.cli.output import clean, print_error, print_json, stdout
from drainer.config.build.rules import make_rules, read_rules
from drainer.errors import UsageError
from drainer.mail.echo import SentData
from drainer.mail.reply import Lost, ProtocolError, Reply, Stage, parse_reply
from drainer.policy.classify.classifier import classify as judge
from drainer.policy.classify.rules import Rule
from drainer.runtime.json_input import parse_json


def classify(
    reply: Annotated[
        str, typer.Argument(help="The reply; without it, one reply a line on stdin.")
    ] = "",
    stage: Annotated[
        str,
        typer.Option(
            help="connect, banner, ehlo, starttls, auth, mail, rcpt,"
            " data or dot, in any case."
        ),
    ] = "rcpt",
    rules: Annotated[
        Path | None, typer.Option(help="File with your own rules, tried before ours.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Only check this file of rules.")
    ] = None,
    path: ConfigOption = None,
    *,
    json_: JsonOption = False,
) -> None:
    """Print what a reply means: verdict, scope, rule and reason.

    Lines on stdin are replies, or JSON objects with `reply` and `stage`, and `sent`:
    a list of texts of the message that a reply may quote. Rules ignore such quoted
    texts. The rules of [primary] rules apply too.

    Example: drainer classify "550 5.1.1 User unknown" --stage rcpt
    """
    if check is not None:
        known = read_rules(check)
        _print_ids(check, [rule.id for rule in known], as_json=json_)
        return
    own = read_rules(rules) if rules else make_rules(load(path))
    if reply:
        _answer(reply, stage, own, as_json=json_)
    elif _answer_lines(stage, own, as_json=json_):
        raise typer.Exit(UsageError.exit_code)


def _print_ids(path: Path, rules: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(path), "rules": rules})
    else:
        stdout().print(f"{clean(path)}: {len(rules)} rules, all valid")


def _answer_lines(stage: str, own: tuple[Rule, ...], *, as_json: bool) -> int:
    """Answer each line of standard input; return the number of invalid lines."""
    bad = 0
    for line in sys.stdin.buffer:  # one answer for every line, even an invalid one
        try:
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            _answer(text, stage, own, as_json=as_json)
        except UsageError as error:
            bad += 1
            if as_json:
                print_json({"error": str(error)})
            else:
                print_error(error)
    return bad


def _answer(line: str, stage: str, own: tuple[Rule, ...], *, as_json: bool) -> None:
    text, sent = line, SentData()
    if line.lstrip().startswith("{"):
        try:
            given = parse_json(line)
            text, stage = str(given["reply"]), str(given.get("stage", stage))
            sent = SentData(addresses=tuple(map(str, given.get("sent", ()))))
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"not a JSON object with a reply: {line[:80]!r}") from None
    facts = _facts(text, _stage(stage), own, sent)
    if as_json:
        print_json(facts)
        return
    verdict, scope = facts["verdict"], facts["scope"]
    words = f"{facts['rule']}: {facts['reason']}"
    stdout().print(f"[bold]{verdict}[/] ({scope}) by {clean(words)}")


def _stage(text: str) -> Stage:
    try:
        return Stage(text.strip().lower())
    except ValueError:
        message = f"{text!r} is not a stage"
        legal = ", ".join(s.value for s in Stage)
        raise UsageError(message, hint=f"legal: {legal}") from None


def _facts(
    text: str, stage: Stage, own: tuple[Rule, ...], sent: SentData
) -> dict[str, Any]:
    try:
        reply = parse_reply(text.replace("\\n", "\n").encode("utf-8", "replace"))
        classification = judge(reply, stage, rules=own, sent=lambda: sent)
    except ProtocolError:
        reply = Reply(code=0, text=text)
        lost = Lost(reason="protocol", detail="no SMTP reply")
        classification = judge(lost, Stage.RCPT)
    return {
        "verdict": classification.verdict.value,
        "scope": classification.scope.value,
        "rule": classification.rule,
        "reason": classification.reason,
        "code": reply.code or None,
        "enhanced": reply.enhanced or None,
    }
