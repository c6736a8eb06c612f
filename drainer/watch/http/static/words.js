// Numbers, times and states in words; nothing here touches the page.

const integer = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", timeZoneName: "short",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
});

// The states of a watch, in order: name, heading, tone, meaning.
export const STATES = [
  ["down", "down", "bad", "The primary is down; nothing is sent."],
  ["probing", "probing", "wait", "drainer checks the primary; it sends nothing yet."],
  ["canary", "trying one message", "wait", "One message goes first."],
  ["ramp", "ramping up", "flow", "Mail flows; the rate rises as far as the primary can handle it."],
  ["cruise", "cruising", "flow", "Mail flows."],
  ["waiting", "waiting", "wait", "Mail waits."],
  ["done", "done", "good", "Nothing is left that a drain can do."],
  ["armed", "armed", "good", "The watch waits for the next outage."],
];

// States of a recipient as the bar groups them: name, heading, states.
export const GROUPS = [
  ["delivered", "delivered", ["delivered"]],
  ["ended", "reported, kept or given up", ["bounced", "quarantined", "discarded"]],
  ["flowing", "on the way", ["in-flight"]],
  ["pending", "to be sent", ["pending"]],
  ["deferred", "tried again later", ["deferred", "unknown"]],
  ["stuck", "held or refused", ["held", "bounce-pending"]],
];

export const count = (n) => integer.format(n);

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "no limit";
  return perSecond >= 100 ? count(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export function duration(seconds) {
  const parts = [];
  let left = Math.max(0, Math.round(seconds));
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (left >= size || (unit === "s" && !parts.length)) {
      parts.push(`${Math.floor(left / size)} ${unit}`);
      left %= size;
    }
  }
  return parts.slice(0, 2).join(" ");
}

// For values that change by the second: only the largest unit.
export const roughly = (seconds) =>
  seconds < 60 ? "Less than a minute" : `About ${duration(seconds - (seconds % 60))}`;

export const moment = (at) => time.format(new Date(at));

export function until(text) {
  const left = (new Date(text) - Date.now()) / 1000;
  return left > 0 ? `until ${moment(text)}, ${duration(left)} from now` : "any moment now";
}
