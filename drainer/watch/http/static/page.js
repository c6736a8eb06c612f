// The status page: listens to /api/events, shows what comes, and gives orders.

import { draw, inWords, minutes } from "./chart.js";
import * as words from "./words.js";

const OLD = 12; // seconds without an event after which the page calls its data old
const MOST = 600;
const $ = (id) => document.getElementById(id);

const shown = { history: [], heard: 0, state: "", breaker: "", counted: 0, stale: false, lost: false, facts: null };

// ---- what is shown

function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function make(name, text = "", kind = "") {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

// Lists change only if they differ, so that a screen reader is not interrupted.
function fill(id, items, make_item) {
  const key = JSON.stringify(items);
  const list = $(id);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...items.map(make_item));
}

// A screen reader says this aloud: important text that changes rarely.
function say(text) {
  $("spoken").textContent = text;
}

function show(facts) {
  const { watch, ledger } = facts;
  shown.facts = facts;
  shown.history = [...shown.history, ...watch.history].slice(-MOST);
  showState(watch);
  showOrders(facts);
  showMail(ledger, facts);
  showRate(watch, facts.at);
  showPrimary(watch, ledger);
  if (ledger) fill("reasons", ledger.reasons, reason);
  if (ledger && !ledger.reasons.length) empty("reasons", isScanned(facts) ? "No recipient waits." : UNSCANNED);
  fill("changes", watch.last_decisions.slice(-12).reverse(), change);
  if (!watch.last_decisions.length) empty("changes", "None yet.");
  put("sources", watch.sources.join(", ") || "no source");
  put("primary", watch.routes.map((route) => route.route).join(", "));
  put("version", watch.version);
}

function empty(id, text) {
  fill(id, [text], (item) => make("li", item, "quiet"));
}

function showState(watch) {
  const [, heading, tone, meaning] = words.STATES.find(([name]) => name === watch.state)
    ?? [watch.state, watch.state, "wait", ""];
  const paused = watch.controls.pause;
  put("state", heading);
  $("state").dataset.tone = tone;
  put("why", watch.why || meaning);
  const next = watch.until ? `; ${words.until(watch.until)}` : "";
  put("since", `since ${words.moment(watch.since)}${next}`);
  fill("steps", words.STATES.map(([name]) => [name, name === watch.state]), step);
  const speed = watch.run ? ` ${words.rate(watch.run.rate_now)}/s` : "";
  document.title = `${heading}${speed} · drainer`;
  const spoken = `The watch is ${heading}${paused ? ", paused" : ""}. ${watch.why}`;
  const breaker = worst(watch.routes);
  if (watch.state !== shown.state || breaker !== shown.breaker) {
    if (shown.state) say(breaker === shown.breaker ? spoken : `The circuit breaker is ${breaker}. ${spoken}`);
    [shown.state, shown.breaker] = [watch.state, breaker];
  }
}

function step([name, current]) {
  const item = make("li", name);
  if (current) item.setAttribute("aria-current", "step");
  return item;
}

function showOrders(facts) {
  const { pause, throttle } = facts.watch.controls;
  $("orders").hidden = !facts.orders;
  $("closed").hidden = facts.orders;
  $("leave").hidden = !facts.orders;
  const held = [
    ["Paused", pause],
    [`Limited to ${words.rate(throttle?.per_second)} messages/s`, throttle],
  ].filter(([, control]) => control);
  fill("in-force", held, ([what, control]) => {
    const line = make("p", "", "order");
    line.append(make("b", what), ` by ${control.by}: ${control.reason || "no reason given"}`);
    const end = control.until ? `until ${words.moment(control.until)}` : "until you end it";
    line.append(make("span", `since ${words.moment(control.at)}, ${end}`, "quiet"));
    return line;
  });
  if (!held.length) fill("in-force", ["none"], () => make("p", "None in force: the configuration applies.", "quiet"));
}

// Before the first scan, nothing is known of the mail that waits.
const UNSCANNED = "Nothing has been scanned yet.";
const isScanned = ({ ledger, watch }) => ledger.spooled || watch.run?.scanned || (ledger.run.run_id && !watch.run);

function showMail(ledger, facts) {
  $("lost").hidden = Boolean(ledger);
  if (!ledger) {
    const age = shown.counted ? `The counts are from ${words.moment(shown.counted)}.` : "There are no counts.";
    put("lost", `drainer cannot read the ledger: ${facts.error}. ${age}`);
    put("eta", "");
    return;
  }
  shown.counted = facts.at * 1000;
  const sums = words.GROUPS.map(([name, heading, states]) =>
    [name, heading, states.reduce((sum, state) => sum + (ledger.states[state] ?? 0), 0)]);
  const done = sums[0][2] + sums[1][2];
  put("final", isScanned(facts) ? words.count(done) : "–");
  put("of", isScanned(facts) ? `of ${words.count(ledger.spooled)} are final` : UNSCANNED);
  fill("bar", sums.filter(([, , n]) => n), ([name, , n]) => {
    const part = make("i", "", `g-${name}`);
    part.style.flexGrow = n / ledger.spooled;
    return part;
  });
  fill("legend", sums.filter(([name, , n]) => n || name === "delivered"), ([name, heading, n]) => {
    const item = make("li");
    item.append(make("i", "", `g-${name}`), make("b", words.count(n)), ` ${heading}`);
    return item;
  });
  const left = facts.eta_seconds;
  put("eta", left ? `${words.roughly(left)} for what can go now, at this rate.` : "");
  $("unbalanced").hidden = ledger.balanced;
  put("unbalanced", ledger.balanced ? "" : "The states do not add up: please report this.");
}

function showRate(watch, at) {
  const run = watch.run;
  put("rate-now", run ? words.rate(run.rate_now) : "0");
  put("limit", run && run.limit !== null
    ? `messages/s of ${words.rate(run.limit)}` : run ? "messages/s, no limit" : "messages/s");
  const parts = run ? [
    `${words.count(run.sent)} of ${words.count(run.total)} messages sent`,
    `${run.connections} ${run.connections === 1 ? "connection" : "connections"}`,
  ] : ["No drain runs."];
  put("run", parts.filter(Boolean).join(" · "));
  draw($("chart"), shown.history, at);
  put("chart-words", inWords(shown.history, at));
  const stops = Math.floor(at / 10) * 10; // the table moves every ten seconds
  fill("minutes", minutes(shown.history, stops), (cells) => {
    const row = make("tr");
    row.append(...cells.map((cell) => make("td", cell)));
    return row;
  });
}

const BREAKER = {
  closed: "Closed: mail flows.",
  paused: "Paused after a temporary refusal",
  "half-open": "Half-open: messages go one at a time.",
  open: "Open: the primary refuses us",
};

// The state of the breaker that is farthest from closed.
function worst(routes) {
  const order = Object.keys(BREAKER);
  const states = routes.map((route) => route.breaker.state);
  return states.sort((a, b) => order.indexOf(b) - order.indexOf(a))[0] ?? "closed";
}

function showPrimary(watch, ledger) {
  put("primary-head", watch.routes.length > 1 ? "The primaries" : "The primary");
  fill("routes", watch.routes.map((route) => route.route), routeBlock);
  watch.routes.forEach((route, n) => showRoute(route, n, ledger));
}

// The parts of one route; showRoute puts the values in.
function routeBlock(name, n) {
  const block = make("article", "", "route");
  const facts = make("dl", "", "facts");
  for (const [key, label] of [
    ["connect", "connects in"], ["rcpt", "answers RCPT in"], ["dot", "answers the dot in"],
  ]) {
    const pair = make("div");
    pair.append(make("dt", label), part("dd", `${key}-ms`, n));
    facts.append(pair);
  }
  block.append(
    make("h3", name), part("p", "flow", n, "quiet"), facts,
    make("h4", "Circuit breaker"), part("p", "breaker", n),
    part("p", "breaker-reply", n, "reply"), part("p", "remedy", n),
    part("ul", "breakers", n, "plain"),
    make("h4", "Last health check"), part("ul", "checks", n, "checks"),
  );
  return block;
}

function part(name, id, n, kind = "") {
  const element = make(name, "", kind);
  element.id = `${id}-${n}`;
  return element;
}

function showRoute(route, n, ledger) {
  put(`flow-${n}`, [
    route.answered && `${route.answered} answered last`,
    route.connections && `${words.count(route.connections)} connections`,
    route.connections && `${words.rate(route.rate_now)} messages/s`,
    route.waiting && `waits: ${route.waiting}`,
  ].filter(Boolean).join(" · "));
  for (const name of ["connect", "rcpt", "dot"]) {
    put(`${name}-ms-${n}`, words.milliseconds(route.latency[`${name}_ms`]));
  }
  const { state, reply, reason, until, remedy } = route.breaker;
  const breaker = [BREAKER[state] ?? state, reason, until && `tried again ${words.until(until)}`];
  put(`breaker-${n}`, breaker.filter(Boolean).join("; "));
  $(`breaker-${n}`).dataset.tone = { closed: "flow", open: "bad" }[state] ?? "wait";
  $(`breaker-reply-${n}`).hidden = !reply;
  put(`breaker-reply-${n}`, reply);
  $(`remedy-${n}`).hidden = !remedy;
  put(`remedy-${n}`, remedy && `What to do: ${remedy}`);
  const others = (ledger?.breakers ?? []).filter((g) =>
    g.route === route.route && g.scope !== "route" && g.state !== "closed");
  fill(`breakers-${n}`, others, (g) => make("li", `${g.scope}: ${g.state}; ${g.reason} ${g.reply}`));
  fill(`checks-${n}`, route.checks, (finding) => {
    const item = make("li");
    const verdict = make("b", finding.verdict);
    verdict.dataset.tone = { ok: "flow", fail: "bad" }[finding.verdict] ?? "wait";
    item.append(verdict, ` ${finding.stage}`);
    const more = [finding.reply, finding.hint].filter(Boolean).join(" – ");
    if (more) item.append(make("span", more, "reply"));
    return item;
  });
  if (!route.checks.length) empty(`checks-${n}`, "None yet.");
}

function reason(row) {
  const item = make("li");
  const head = make("p");
  head.append(make("b", words.count(row.recipients)), ` ${row.state}: ${row.meaning}`);
  const due = row.due && new Date(row.due) > Date.now() ? `, due from ${words.moment(row.due)}` : "";
  item.append(head, make("p", `${row.rule}, since ${words.moment(row.since)}${due}`, "quiet"));
  if (row.reply) item.append(make("p", row.reply, "reply"));
  return item;
}

function change(row) {
  const item = make("li");
  const at = make("time", words.moment(row.at));
  at.dateTime = row.at;
  const head = make("p");
  head.append(at, " ", make("span", `${row.before || "start"} → `, "quiet"), make("b", row.state));
  item.append(head, make("p", row.why, "quiet"));
  return item;
}

// ---- events

let stream = null;

function listen() {
  stream?.close();
  shown.history = [];
  stream = new EventSource("/api/events");
  stream.addEventListener("status", (event) => {
    const facts = JSON.parse(event.data);
    if (!shown.heard) $("main").dataset.ready = "yes";
    shown.heard = Date.now();
    shown.lost = false;
    show(facts);
    tick();
  });
  stream.addEventListener("open", () => { shown.history = []; });
  stream.addEventListener("error", () => {
    shown.lost = true;
    tick();
    if (stream.readyState === EventSource.CLOSED) retry();
  });
}

// The browser gives up after an answer that is not a stream: the session may be over.
async function retry() {
  try {
    const answer = await fetch("/api/status");
    if (answer.status === 401) location.reload();
  } catch { /* it is unreachable; the timer says so */ }
  setTimeout(listen, 3000);
}

function tick() {
  const age = shown.heard ? Math.round((Date.now() - shown.heard) / 1000) : 0;
  const stale = age >= OLD;
  document.body.classList.toggle("stale", stale);
  $("stale").hidden = !stale;
  if (stale) put("stale", `This data is ${words.duration(age)} old: drainer does not answer. Trying again.`);
  const live = shown.heard && !shown.lost;
  put("link", stale ? "not connected" : live ? "live" : "connecting");
  $("link").dataset.tone = stale ? "bad" : live ? "flow" : "wait";
  if (stale !== shown.stale) {
    say(stale ? "Connection lost: this data is old." : "Connected again.");
    shown.stale = stale;
  }
}

// ---- orders

const ORDERS = {
  pause: ["Pause", "drainer starts nothing new; it finishes the messages under way."],
  resume: ["Resume", "This ends a pause: mail flows again as the watch allows."],
  throttle: ["Change rate", "It is in force from the next second, for this drain and the next one."],
};
let order = "pause";

function open(name) {
  order = name;
  const [heading, meaning] = ORDERS[name];
  put("order-head", heading);
  put("order-words", meaning);
  put("order-go", heading);
  $("rate-field").hidden = name !== "throttle";
  $("for-field").hidden = name === "resume";
  $("order-wrong").hidden = true;
  const run = shown.facts?.watch.run;
  const unit = run?.limit === null ? "" : " per second";
  const now = run ? `Now ${words.rate(run.limit)}${unit}. ` : "";
  put("rate-hint", `${now}Leave it empty to restore the configured rate.`);
  $("order-form").reset();
  $("order").showModal();
  $(name === "throttle" ? "rate" : "reason").focus();
}

async function give(event) {
  event.preventDefault();
  const facts = { reason: $("reason").value };
  if (order !== "resume") facts.for = $("for").value;
  const rate = $("rate").value.trim();
  if (order === "throttle") facts.rate = rate && `${rate}/${$("unit").value}`;
  $("order-go").disabled = true;
  try {
    const answer = await fetch(`/api/${order}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(facts),
    });
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.error);
    $("order").close();
    put("ordered", `${ORDERS[order][0]}: ordered at ${words.moment(Date.now())}.`);
  } catch (error) {
    put("order-wrong", error.message || "drainer does not answer");
    $("order-wrong").hidden = false;
  } finally {
    $("order-go").disabled = false;
  }
}

for (const button of document.querySelectorAll("[data-order]")) {
  button.addEventListener("click", () => open(button.dataset.order));
}
$("order-no").addEventListener("click", () => $("order").close());
$("order-form").addEventListener("submit", give);
addEventListener("resize", () => shown.facts && draw($("chart"), shown.history, shown.facts.at));
setInterval(tick, 1000);
listen();
