// Rate against limit, and the primary's answers below, over the last ten minutes.

import { milliseconds, moment, rate } from "./words.js";

const SPAN = 600;
const SVG = "http://www.w3.org/2000/svg";
const PAD = { left: 34, right: 8, top: 8, gap: 26, bottom: 20 };

// Samples are [seconds, messages per second, limit or null, milliseconds or null].
export function draw(svg, samples, now) {
  const width = Math.max(260, svg.clientWidth || 600);
  const height = 240;
  const lower = 52;
  const floor = height - PAD.bottom - lower - PAD.gap;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const seen = samples.filter(([t]) => t > now - SPAN);
  const x = (t) => PAD.left + (1 - (now - t) / SPAN) * (width - PAD.left - PAD.right);
  const rates = seen.map(([, value]) => value);
  const limits = seen.map(([, , limit]) => limit).filter((limit) => limit !== null);
  const most = ceiling(Math.max(1, ...rates, ...limits.filter((l) => l < 20 * Math.max(1, ...rates))));
  const y = (value) => floor - (Math.min(value, most) / most) * (floor - PAD.top);
  const slowest = ceiling(Math.max(10, ...seen.map(([, , , ms]) => ms ?? 0)));
  const base = height - PAD.bottom;
  const y2 = (ms) => base - (ms / slowest) * lower;

  for (const part of [0, 0.5, 1]) {
    line(svg, "grid", PAD.left, y(most * part), width - PAD.right, y(most * part));
    label(svg, PAD.left - 6, y(most * part) + 4, short(most * part), "end");
  }
  line(svg, "grid", PAD.left, base, width - PAD.right, base);
  label(svg, PAD.left, base - lower - 4, `final dot, up to ${milliseconds(slowest)}`, "start");
  for (let minute = 0; minute <= 10; minute += width < 420 ? 5 : 2) {
    const words = minute ? `−${minute} min` : "now";
    const anchor = minute === 10 ? "start" : minute ? "middle" : "end";
    label(svg, x(now - minute * 60), height - 4, words, anchor);
  }
  for (const run of pieces(seen)) {
    const top = run.map(([t, value]) => `${x(t).toFixed(1)},${y(value).toFixed(1)}`);
    const [first, last] = [x(run[0][0]), x(run.at(-1)[0])];
    path(svg, "area", `M${first},${floor}L${top.join("L")}L${last},${floor}Z`);
    path(svg, "rate", `M${top.join("L")}`);
    steps(svg, run, x, y, most);
    const dots = run.filter(([, , , ms]) => ms !== null);
    if (dots.length) {
      path(svg, "dot", `M${dots.map(([t, , , ms]) => `${x(t).toFixed(1)},${y2(ms).toFixed(1)}`).join("L")}`);
    }
  }
  if (!seen.length) {
    label(svg, width / 2, (PAD.top + floor) / 2, "no drain in the last ten minutes", "middle");
  }
}

export function inWords(samples, now) {
  const seen = samples.filter(([t]) => t > now - SPAN);
  if (!seen.length) return "No drain in the last ten minutes.";
  const rates = seen.map(([, value]) => value);
  const [, last, limit] = seen.at(-1);
  const mean = rates.reduce((sum, value) => sum + value, 0) / rates.length;
  return `Rate over the last ten minutes: ${rate(last)} messages per second at last, `
    + `${rate(mean)} on average, ${rate(Math.max(...rates))} at most; `
    + (limit === null ? "no limit." : `the limit is ${rate(limit)}.`);
}

// One row a minute, the latest first: [time, mean rate, last limit, mean milliseconds].
export function minutes(samples, now) {
  const rows = [];
  for (let end = now; end > now - SPAN; end -= 60) {
    const part = samples.filter(([t]) => t > end - 60 && t <= end);
    if (!part.length) continue;
    const dots = part.map(([, , , ms]) => ms).filter((ms) => ms !== null);
    const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
    rows.push([
      moment((end - 60) * 1000),
      rate(mean(part.map(([, value]) => value))),
      rate(part.at(-1)[2]),
      dots.length ? milliseconds(mean(dots)) : "–",
    ]);
  }
  return rows;
}

// No line crosses a gap of more than three seconds.
function pieces(samples) {
  const found = [];
  for (const sample of samples) {
    const run = found.at(-1);
    if (run && sample[0] - run.at(-1)[0] <= 3) run.push(sample);
    else found.push([sample]);
  }
  return found;
}

function steps(svg, run, x, y, most) {
  let d = "";
  let before = null;
  for (const [t, , limit] of run) {
    if (limit !== null && limit <= most) {
      d += before === null ? `M${x(t)},${y(limit)}` : `H${x(t).toFixed(1)}V${y(limit)}`;
      before = limit;
    } else before = null;
  }
  if (d) path(svg, "limit", d);
}

function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= value);
}

const short = (value) => (value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1));

function add(svg, name, attributes, kind) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.setAttribute("class", kind);
  svg.append(element);
  return element;
}

const path = (svg, kind, d) => add(svg, "path", { d }, kind);
const line = (svg, kind, x1, y1, x2, y2) => add(svg, "line", { x1, y1, x2, y2 }, kind);

function label(svg, x, y, words, anchor) {
  add(svg, "text", { x, y, "text-anchor": anchor }, "tick").textContent = words;
}
