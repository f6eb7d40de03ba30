/**
 * The live page: one document, with nothing from elsewhere. It is text in a
 * module, so that it is there in a compiled binary and needs no permission.
 *
 * What workers and handlers named themselves is only ever set as text content.
 *
 * @module
 */

/** The page's style. */
export const DASHBOARD_STYLE: string = String.raw`
:root {
  color-scheme: light dark;
  --back: #f6f7f9; --card: #ffffff; --line: #dfe3e8; --text: #1b2530;
  --soft: #55626f; --rate: #1c6fc4; --time: #8a4bb5; --good: #1d7a46;
  --warn: #8f5a00; --bad: #b3261e; --focus: #1c6fc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #11161c; --card: #1a2129; --line: #2d3742; --text: #e6ebf0;
    --soft: #a3b0bd; --rate: #6db3f5; --time: #c99aec; --good: #63c98d;
    --warn: #e6b35c; --bad: #ff8a80; --focus: #6db3f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
.page { max-width: 1080px; margin: 0 auto; padding: 24px 20px 48px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; }
h1 { font-size: 22px; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 15px; font-weight: 650; margin: 0; }
p { margin: 0; }
.soft { color: var(--soft); }
.pill {
  display: inline-flex; align-items: center; gap: 7px; font-size: 13px;
  white-space: nowrap;
}
.pill::before {
  content: ""; width: 8px; height: 8px; border-radius: 50%;
  background: currentColor;
}
.good { color: var(--good); } .warn { color: var(--warn); }
.bad { color: var(--bad); }
#summary { margin: 6px 0 20px; color: var(--soft); }
.figures {
  display: grid; gap: 12px; margin: 0 0 12px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
}
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 14px 16px; min-width: 0;
}
.figures dt { color: var(--soft); font-size: 13px; }
.figures dd {
  margin: 0; font-size: 25px; line-height: 1.3; font-weight: 600;
  font-variant-numeric: tabular-nums;
}
.plots {
  display: grid; gap: 12px; margin-bottom: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
}
figure { margin: 0; }
figcaption { display: flex; justify-content: space-between; gap: 12px; }
figcaption b { font-variant-numeric: tabular-nums; white-space: nowrap; }
.plot { position: relative; height: 130px; margin: 10px 0 4px; }
.plot svg { width: 100%; height: 100%; display: block; overflow: visible; }
.plot .top {
  position: absolute; top: 2px; left: 0; font-size: 12px; color: var(--soft);
  background: var(--card); padding-right: 6px; line-height: 1.2;
}
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.area { opacity: .12; stroke: none; }
.rate .curve { stroke: var(--rate); } .rate .area { fill: var(--rate); }
.time .curve { stroke: var(--time); } .time .area { fill: var(--time); }
.axis {
  display: flex; justify-content: space-between; font-size: 12px;
  color: var(--soft);
}
section { margin-top: 12px; }
.scroll { overflow-x: auto; margin: 8px -16px -6px; padding: 0 16px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td {
  padding: 8px 0 8px 16px; text-align: right; white-space: nowrap;
  border-top: 1px solid var(--line); font-weight: 400;
}
thead th { color: var(--soft); font-size: 13px; border-top: 0; }
th:first-child { padding-left: 0; text-align: left; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
tbody th {
  max-width: 260px; overflow: hidden; text-overflow: ellipsis; font-weight: 550;
}
ol { list-style: none; margin: 8px 0 0; padding: 0; max-height: 420px; overflow: auto; }
li { padding: 8px 0; border-top: 1px solid var(--line); }
li:first-child { border-top: 0; }
li code {
  display: block; font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; color: var(--bad);
  max-height: 9em; overflow: auto;
}
li span { font-size: 13px; color: var(--soft); }
form { display: flex; flex-wrap: wrap; gap: 10px; align-items: end; }
label { display: grid; gap: 4px; font-size: 13px; }
input, button {
  font: inherit; color: inherit; background: var(--back); padding: 7px 12px;
  border: 1px solid var(--soft); border-radius: 8px;
}
button { cursor: pointer; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 6px; }
[hidden] { display: none !important; }
.unseen {
  position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap;
}
@media (max-width: 560px) {
  .page { padding: 16px 12px 32px; }
  .figures { grid-template-columns: repeat(3, 1fr); gap: 8px; }
  .figures .card { padding: 10px 12px; }
  .figures dd { font-size: 19px; }
  th, td { padding-left: 10px; font-size: 13px; }
  .plot { height: 92px; }
  th, td { padding-left: 8px; }
  thead th { font-size: 12px; white-space: normal; vertical-align: bottom; line-height: 1.25; }
  tbody th { max-width: 21vw; }
}
`;

/** The page's program. */
export const DASHBOARD_SCRIPT: string = String.raw`
const $ = (id) => document.getElementById(id);
const SPAN = 300;
// At first a minute, then two, then all that is kept.
const spanOf = (seconds) => seconds < 55 ? 60 : seconds < 115 ? 120 : SPAN;
let history = [];
let token = new URLSearchParams(location.search).get("token") ?? "";
if (token !== "") window.history.replaceState(null, "", location.pathname);
let told = "";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => Math.abs(n) < 100000 ? whole.format(n) : short.format(n);
const rate = (n) => n > 0 && n < 10 ? n.toFixed(1) : count(n);
const ms = (n) => {
  if (n === null || n === undefined) return "–";
  if (n < 10) return n.toFixed(1) + " ms";
  if (n < 1000) return Math.round(n) + " ms";
  return n < 60000 ? (n / 1000).toFixed(1) + " s" : (n / 60000).toFixed(1) + " min";
};
const bytes = (n) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at++; }
  return (n < 10 && at > 0 ? n.toFixed(1) : Math.round(n)) + " " + units[at];
};
const many = (n, what) => count(n) + " " + what + (n === 1 ? "" : "s");
const set = (id, text) => {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
};
const make = (name, text, kind) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

// The least round number that is not below n.
function ceiling(n) {
  if (!(n > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(n));
  for (const step of [1, 2, 3, 5, 10]) if (n <= step * unit) return step * unit;
  return 10 * unit;
}

function plot(id, of, show, now) {
  const values = history.map((sample) => [sample.at, of(sample)]);
  const top = ceiling(values.reduce((most, [, n]) => Math.max(most, n ?? 0), 0));
  const span = spanOf(values.length > 0 ? (now - values[0][0]) / 1000 : 0);
  set(id + "-from", span / 60 + " min ago");
  let curve = "", area = "", from = null, last = null;
  const close = () => {
    if (from !== null) area += "L" + last + " 100L" + from + " 100Z";
    from = null;
  };
  for (const [at, n] of values) {
    const x = (1000 - (now - at) / span).toFixed(1);
    if (x < 0 || n === null) { close(); continue; }
    const y = (100 - n / top * 100).toFixed(1);
    const step = (from === null ? "M" : "L") + x + " " + y;
    if (from === null) from = x;
    curve += step; area += step; last = x;
  }
  close();
  $(id + "-curve").setAttribute("d", curve);
  $(id + "-area").setAttribute("d", area);
  set(id + "-top", show(top));
  const latest = values.length > 0 ? values[values.length - 1][1] : null;
  set(id + "-now", latest === null ? "–" : show(latest));
}

const STATE = { active: "good", idle: "soft", suspect: "warn", leaving: "soft" };
const rows = new Map();
function table(workers) {
  const body = $("workers");
  const ids = new Set(workers.map((worker) => worker.id));
  for (const [id, row] of rows) {
    if (!ids.has(id)) { row.remove(); rows.delete(id); }
  }
  for (const worker of workers) {
    let row = rows.get(worker.id);
    if (row === undefined) {
      row = make("tr");
      const name = make("th");
      name.scope = "row";
      const state = make("td");
      state.append(make("span"));
      row.append(name, state, make("td"), make("td"), make("td"), make("td"));
      rows.set(worker.id, row);
      body.append(row);
    }
    const { addr } = worker;
    const where = addr.hostname === undefined ? "" : addr.hostname + ":" + addr.port;
    const [name, state, ...cells] = row.children;
    const label = worker.name || where || "worker " + worker.id;
    if (name.textContent !== label) name.textContent = label;
    name.title = label + (where === "" ? "" : " at " + where) + ", id " + worker.id;
    const pill = state.firstChild;
    if (pill.textContent !== worker.state) {
      pill.textContent = worker.state;
      pill.className = "pill " + (STATE[worker.state] ?? "soft");
    }
    const texts = [
      rate(worker.ratePerSecond) + "/s", count(worker.inFlight),
      count(worker.failed), ms(worker.rttMs),
    ];
    cells.forEach((cell, at) => {
      if (cell.textContent !== texts[at]) cell.textContent = texts[at];
    });
    cells[2].className = worker.failed > 0 ? "bad" : "";
  }
  $("no-workers").hidden = workers.length > 0;
  $("workers-table").hidden = workers.length === 0;
  set("workers-count", workers.length === 0 ? "" : count(workers.length));
}

let shownFailures = "";
function failures(list) {
  const key = list.map(({ id, at }) => id + "@" + at).join();
  if (key === shownFailures) return;
  shownFailures = key;
  $("failures").replaceChildren(...list.map(({ id, at, attempts, error }) => {
    const item = make("li");
    const when = make("span", "Item " + id + " · delivered " +
      (attempts === 1 ? "once" : attempts + " times") + " · ");
    const time = make("time", new Date(at).toLocaleTimeString());
    time.dateTime = new Date(at).toISOString();
    when.append(time);
    item.append(make("code", error), when);
    return item;
  }));
  $("no-failures").hidden = list.length > 0;
  $("failures").hidden = list.length === 0;
}

const PHASE = {
  open: ["live", "good"], ending: ["ending: no more items", "warn"],
  finished: ["finished", "soft"], aborted: ["aborted", "bad"],
  lost: ["no connection, trying again", "warn"],
};
function phase(name) {
  const [text, kind] = PHASE[name] ?? PHASE.lost;
  set("phase", text);
  $("phase").className = "pill " + kind;
}

// Read aloud, and so only when it is worth it.
function tell(shot) {
  const suspects = shot.workers.filter(({ state }) => state === "suspect").length;
  const text = (shot.workers.length === 0 ? "No worker is connected" :
    many(shot.workers.length, "worker") + " connected") +
    (suspects > 0 ? ", " + count(suspects) + " suspect" : "") + ", " +
    (shot.failed === 0 ? "nothing failed" : many(shot.failed, "item") + " failed") + ".";
  if (text !== told) { told = text; set("summary", text); }
}

function show(shot) {
  document.title = count(shot.pending) + " waiting · " + shot.title;
  set("title", shot.title);
  phase(shot.phase);
  tell(shot);
  set("pending", count(shot.pending));
  set("in-flight", count(shot.inFlight));
  set("settled", count(shot.settled));
  set("failed", count(shot.failed));
  $("failed").className = shot.failed > 0 ? "bad" : "";
  set("redelivered", count(shot.redelivered));
  set("unread", count(shot.unread));
  set("traffic", "Up " + ms(shot.upMs) + " · in " + bytes(shot.bytesIn) +
    " · out " + bytes(shot.bytesOut) + " · " +
    many(shot.duplicates, "late result") + " dropped");
  const { sample } = shot;
  if (sample !== null && history[history.length - 1]?.at !== sample.at) {
    history.push(sample);
    if (history.length > SPAN) history.shift();
  }
  plot("rate", ({ rate }) => rate, (n) => rate(n) + "/s", shot.at);
  plot("time", ({ latencyMs }) => latencyMs, ms, shot.at);
  table(shot.workers);
  failures(shot.failures);
}

async function open() {
  const headers = token === "" ? {} : { authorization: "Bearer " + hex(token) };
  const response = await fetch("stats.json", { headers });
  if (response.status === 401) {
    $("live").hidden = true;
    $("login").hidden = false;
    set("login-error", token === "" ? "" : "That is not the secret.");
    phase("lost");
    set("phase", "locked");
    $("token").focus();
    return;
  }
  $("login").hidden = true;
  $("live").hidden = false;
  show(await response.json());
  await follow(headers);
}
// No EventSource: it sends no headers, and whoever is on the way logs addresses.
async function follow(headers) {
  const response = await fetch("events", { headers });
  if (!response.ok) throw new Error("there are no events");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "";;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the events have ended");
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      // JSON may have a line separator as it is: hence the s.
      const [, name, data] = event.match(/^(?:event: (.*)\n)?data: (.*)$/s);
      if (name === "end") return phase(JSON.parse(data).phase);
      if (name === "history") history = JSON.parse(data);
      else show(JSON.parse(data));
    }
  }
}
// Who answers while the server is away may be a proxy.
function begin() {
  open().catch(() => { phase("lost"); setTimeout(begin, 2000); });
}
// Any text fits into a header so.
const hex = (text) => [...new TextEncoder().encode(text)]
  .map((byte) => byte.toString(16).padStart(2, "0")).join("");

$("login-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  token = $("token").value;
  begin();
});
begin();
`;

function plotFigure(id: "rate" | "time", title: string, note: string): string {
  return `<figure class="card ${id}">
<figcaption><h2>${title}</h2><b id="${id}-now">–</b></figcaption>
<div class="plot" role="img" aria-label="${title}, the last five minutes">
<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">
<path class="grid" d="M0 0H1000M0 50H1000M0 100H1000" vector-effect="non-scaling-stroke"/>
<path class="area" id="${id}-area"/>
<path class="curve" id="${id}-curve" vector-effect="non-scaling-stroke"/>
</svg><span class="top" id="${id}-top"></span></div>
<div class="axis"><span id="${id}-from">5 min ago</span><span>${note}</span><span>now</span></div>
</figure>`;
}

function figure(id: string, title: string): string {
  return `<div class="card"><dt>${title}</dt><dd id="${id}">–</dd></div>`;
}

/** The page. */
export const DASHBOARD_PAGE: string = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>distchan</title>
<link rel="icon" href="data:,">
<style>${DASHBOARD_STYLE}</style>
</head>
<body>
<div class="page">
<header><h1 id="title">distchan</h1><span id="phase" class="pill soft">connecting</span></header>
<p id="summary" role="status" aria-live="polite">Looking at the server …</p>
<noscript><p>This page needs JavaScript; /stats.json and /metrics don't.</p></noscript>
<section id="login" class="card" hidden aria-labelledby="login-title">
<h2 id="login-title">The server's secret</h2>
<form id="login-form">
<input type="text" autocomplete="username" value="distchan" hidden>
<label>Secret <input id="token" type="password" autocomplete="current-password" required></label>
<button>Open</button>
<p id="login-error" class="bad" role="alert"></p>
</form>
</section>
<main id="live">
<dl class="figures">
${figure("pending", "Waiting")}
${figure("in-flight", "In flight")}
${figure("settled", "Settled")}
${figure("failed", "Failed")}
${figure("redelivered", "Redelivered")}
${figure("unread", "Unread")}
</dl>
<div class="plots">
${plotFigure("rate", "Rate", "items settled a second")}
${plotFigure("time", "Latency", "dispatch to result, estimated")}
</div>
<section class="card" aria-labelledby="workers-title">
<h2 id="workers-title">Workers <span id="workers-count" class="soft"></span></h2>
<p id="no-workers" class="soft">No worker is connected: items wait.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="workers-title">
<table id="workers-table" hidden aria-labelledby="workers-title">
<thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">Rate</th><th scope="col">In flight</th><th scope="col">Failed</th><th scope="col">Round trip</th></tr></thead>
<tbody id="workers"></tbody>
</table>
</div>
</section>
<section class="card" aria-labelledby="failures-title">
<h2 id="failures-title">Recent failures</h2>
<p id="no-failures" class="soft">Nothing has failed.</p>
<ol id="failures" tabindex="0" aria-labelledby="failures-title" hidden></ol>
</section>
<section><p class="soft" id="traffic"></p></section>
</main>
</div>
<script type="module">${DASHBOARD_SCRIPT}</script>
</body>
</html>
`;
