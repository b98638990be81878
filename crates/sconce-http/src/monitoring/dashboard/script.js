// Asks for the figures once a second and shows them. Elements are kept and only their texts change, so that a selection,
// the focus and a screen reader's place stay where they are.
"use strict";

const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
const HISTORY = 60;

const byId = (id) => document.getElementById(id);
const state = { paused: false, previous: null, lostSince: null, history: new Map(), models: new Map(), token: sessionStorage.getItem("sconce-token") };

// ---- figures as texts

const withDigits = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

function time(seconds) {
  if (!(seconds > 0)) return "0 s";
  if (seconds < 1e-3) return `${withDigits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${withDigits(seconds * 1e3)} ms`;
  return `${withDigits(seconds)} s`;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; count >= 1024 && at < units.length - 1; at += 1) count /= 1024;
  return `${withDigits(count)} ${units[at]}`;
}

const count = (value) => value.toLocaleString("en");
const share = (part) => `${withDigits(Math.round(part * 1000) / 10)} %`;
const ratio = (part, whole) => (whole > 0 ? part / whole : 0);
const sum = (counts, of) => counts.reduce((total, it) => total + of(it), 0);
const words = (name) => name.replaceAll("_", " ");

// ---- elements

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

/** Makes `parent` have as many children as there are `items`, and gives each child its item. */
function children(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, at) => {
    const child = parent.children[at] ?? parent.appendChild(make(item));
    update(child, item);
  });
}

/** A bar of parts between 0 and 1, the longest first. A number beside it says the same. */
const bar = (...parts) => ({ bar: parts });

function fillCell(cell, content) {
  if (content === null || typeof content !== "object") return setText(cell, String(content));
  cell.className = "bar";
  const track = cell.firstElementChild ?? cell.appendChild(element("span", undefined, "track"));
  track.setAttribute("aria-hidden", "true");
  children(track, content.bar, () => element("span"), (node, part) => {
    node.style.inlineSize = `${Math.min(Math.max(part, 0), 1) * 100}%`;
  });
}

/** Rows of a table's body; the first cell of each is its heading. */
function rows(body, table) {
  children(body, table, () => element("tr"), (row, cells) => {
    const cell = (_) => element(row.children.length === 0 ? "th" : "td");
    children(row, cells, cell, fillCell);
    row.firstElementChild.scope = "row";
  });
}

/** Terms with their values. */
function facts(list, terms) {
  const make = () => {
    const group = element("div");
    group.append(element("dt"), element("dd"));
    return group;
  };
  children(list, terms, make, (group, [term, value]) => {
    setText(group.firstElementChild, term);
    setText(group.lastElementChild, value);
  });
}

// ---- the cards on top

function remember(name, value) {
  const values = state.history.get(name) ?? [];
  values.push(value);
  if (values.length > HISTORY) values.shift();
  state.history.set(name, values);
  return values;
}

function line(values) {
  const top = Math.max(...values, 1e-12);
  const step = 100 / (HISTORY - 1);
  const start = HISTORY - values.length;
  return values.map((value, at) => `${at ? "L" : "M"}${((start + at) * step).toFixed(2)} ${(29 - (value / top) * 27).toFixed(2)}`).join("");
}

function makeCard() {
  const group = element("div");
  const chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  chart.setAttribute("viewBox", "0 0 100 30");
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  chart.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  const value = element("dd");
  value.append(element("span"), element("small"), chart);
  group.append(element("dt"), value);
  return group;
}

function cards(figures) {
  const { total, recent } = figures;
  const before = state.previous?.total;
  const passed = before ? total.uptime - before.uptime : total.uptime;
  const finished = (metrics) => sum(metrics.models, (it) => it.succeeded + it.failed);
  const rate = ratio(Math.max(finished(total) - (before ? finished(before) : 0), 0), passed);
  const latencies = recent.models.map((it) => ({ name: title(it), ...it.latency.request }));
  const slowest = latencies.reduce((most, it) => (it.p99 > most.p99 ? it : most), { p50: 0, p99: 0, name: "" });
  const queued = sum(total.models, (it) => it.queue.items);
  const oldest = Math.max(0, ...total.models.map((it) => it.queue.oldest_age));
  const busy = recent.models.flatMap((model) => model.devices.map((it) => ({ part: ratio(it.busy, recent.uptime), name: `${it.name}, ${title(model)}${model.ladder ? ` in ${it.precision}` : ""}` })));
  const busiest = busy.reduce((most, it) => (it.part > most.part ? it : most), { part: 0, name: "" });
  const refused = sum(recent.models, (it) => sum(it.refusals, (reason) => reason.count));
  const cached = sum(recent.models, (it) => sum(it.answers, (answer) => (answer.name === "computed" ? 0 : answer.count)));
  const answered = sum(recent.models, (it) => sum(it.answers, (answer) => answer.count));
  const cards = [
    ["Requests per second", withDigits(rate), `${count(total.in_flight)} in flight`, rate],
    ["Latency, p99", time(slowest.p99), slowest.name, slowest.p99],
    ["Queued items", count(queued), `oldest ${time(oldest)}`, queued],
    ["Busiest device", share(busiest.part), busiest.name, busiest.part],
    ["Answers reused", share(ratio(cached, answered)), `of ${count(answered)} items`, ratio(cached, answered)],
    ["Refused items", count(refused), `of ${count(answered + refused)}`, refused],
  ];
  children(byId("cards"), cards, makeCard, (card, [name, value, detail, figure]) => {
    const [term, description] = card.children;
    const [number, small, chart] = description.children;
    setText(term, name);
    setText(number, value);
    setText(small, detail);
    chart.firstElementChild.setAttribute("d", line(remember(name, figure)));
  });
}

// ---- a model

/** The name of a model, with its version unless it is the first. */
function title({ name, version }) {
  return version === "1" ? name : `${name}, version ${version}`;
}

function makeModel(name) {
  const article = byId("model").content.cloneNode(true).firstElementChild;
  article.dataset.model = name;
  article.querySelector(".scroll").setAttribute("aria-label", `Devices of ${name}`);
  article.querySelector("h2").textContent = name;
  return article;
}

function stages(latency) {
  const longest = Math.max(latency.request.p99, latency.serialise.p99, 1e-9);
  return ["request", "prepare", "cache", "queue", "run", "finish", "serialise"].map((stage) => {
    const { p50, p99 } = latency[stage];
    const name = stage === "request" ? "whole request" : stage;
    return [name, time(p50), time(p99), bar(p99 / longest, p50 / longest)];
  });
}

function batches(list) {
  const all = sum(list, (it) => it.batches);
  const range = ({ max_size: size }, at) => {
    if (size === null) return `over ${list[at - 1].max_size}`;
    const from = at === 0 ? 1 : list[at - 1].max_size + 1;
    return from === size ? `${size}` : `${from}–${size}`;
  };
  const named = list.map((it, at) => [range(it, at), it.batches]);
  const last = named.findLastIndex(([, times]) => times > 0);
  return named.slice(0, Math.max(last + 1, 1)).map(([name, times]) => [name, share(ratio(times, all)), bar(ratio(times, all))]);
}

function outcomes(total, recent) {
  const some = (counts, before) => counts.filter((it) => it.count > 0).map((it) => [`${before}${words(it.name)}`, count(it.count)]);
  const terms = [["requests answered", count(recent.succeeded)], ["requests failed", count(recent.failed)]];
  terms.push(...some(recent.answers, "items: "), ...some(recent.refusals, "refused: "), ...some(recent.errors, "error: "));
  terms.push(["answered since the start", count(total.succeeded)]);
  return terms;
}

function devices(loaded, total, recent, seconds) {
  return loaded.placement.map((placed) => {
    const isSame = (it) => it.name === placed.device && it.precision === placed.precision;
    const running = recent.devices.find(isSame);
    const present = total.devices.find(isSame);
    const part = present && !present.available ? "lost" : placed.verdict;
    const busy = running ? ratio(running.busy, seconds) : 0;
    const cost = present && present.fixed_cost !== null ? `${time(present.fixed_cost)} + ${time(present.cost_per_weight)} per unit of weight` : "not measured";
    const weights = placed.weight_bytes === null ? "–" : `${bytes(placed.weight_bytes)}${present && !present.loaded ? ", not loaded" : ""}`;
    return [placed.device, part, running ? share(busy) : "–", bar(busy), placed.precision ?? "–", weights, cost, placed.reason];
  });
}

/** The present precision with its decision, and the others and the steps of a model that has several. */
function precision({ precision: present, decision, ladder }) {
  const decided = `${present}${decision ? ` ${decidedBy(decision)}` : ""}`;
  if (!ladder) return decided;
  const steps = ladder.steps_down + ladder.steps_up;
  return `${decided} now, of ${ladder.precisions.join(", ")} (${count(steps)} ${steps === 1 ? "step" : "steps"})`;
}

/** The record that allows a precision, and its last day. */
function decidedBy({ id, expires }) {
  if (expires === null) return id;
  return `by decision ${id} until ${new Date(expires * 1000).toISOString().slice(0, 10)}`;
}

function showModel(article, total, recent, loaded, seconds) {
  const [, facts_] = article.children;
  const part = (name) => article.querySelector(name);
  setText(facts_, loaded ? `${loaded.task} · ${precision(total)} · ${count(loaded.parameters)} parameters · loaded in ${time(loaded.load_time)}` : precision(total));
  rows(part(".stages tbody"), stages(recent.latency));
  rows(part(".batches tbody"), batches(recent.batches));
  const queue = total.queue;
  const room = loaded ? ` of ${count(loaded.max_queue_size)}` : "";
  facts(part(".queue"), [
    ["items", `${count(queue.items)}${room}`],
    ["weight", count(queue.weight)],
    ["oldest", time(queue.oldest_age)],
    ["waiting for room", count(queue.waiting_for_room)],
    ["cancelled", count(recent.queue.cancelled)],
    ["dropped as too late", count(recent.queue.dropped)],
  ]);
  facts(part(".outcomes"), outcomes(total, recent));
  if (loaded) rows(part(".devices tbody"), devices(loaded, total, recent, seconds));
}

function models({ total, recent, models: loaded }) {
  const parent = byId("models");
  const names = total.models.map(title);
  for (const article of [...parent.children]) if (!names.includes(article.dataset.model)) article.remove();
  total.models.forEach((model, at) => {
    let article = [...parent.children].find((it) => it.dataset.model === title(model));
    if (!article) {
      article = makeModel(title(model));
      parent.insertBefore(article, parent.children[at] ?? null);
    }
    const named = (it) => title(it) === title(model);
    showModel(article, model, recent.models.find(named) ?? model, loaded.find(named), recent.uptime);
  });
}

// ---- what became slower, the cache, the process

const PARTS = { fixed: "its fixed cost", per_weight: "its cost per weight" };

function degradations({ total, time: now }) {
  const found = total.models.flatMap((model) => model.degradations.map((it) => ({ model: title(model), ...it })));
  const list = byId("degradations");
  const text = found.map((it) => {
    const where = it.device ? ` in ${it.precision} on ${it.device}` : "";
    const part = it.part ? ` (${PARTS[it.part] ?? words(it.part)})` : "";
    const day = now - it.since > 72000 ? { day: "numeric", month: "short" } : {};
    const since = new Date(it.since * 1000).toLocaleString("en-GB", { ...day, hour: "2-digit", minute: "2-digit" });
    return [`⚠ ${it.model}: ${words(it.stage)}${where}${part}`, ` is ${it.ratio.toFixed(1)} times what it was, since ${since}`];
  });
  for (const model of total.models) {
    for (const { precision: lower, alike, different, alarm } of model.shadow) {
      if (alarm) text.push([`⚠ ${title(model)}: answers in ${lower}`, ` differ from those in f32 by more than is allowed (${count(different)} of ${count(alike + different)}); it answers in ${model.precision}`]);
    }
  }
  // A screen reader announces what is put there: the list is left alone while it says the same.
  const key = JSON.stringify(text);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...text.map(([subject, rest]) => {
    const alarm = element("p", undefined, "alarm");
    alarm.append(element("strong", subject), rest);
    return alarm;
  }));
  if (!text.length) list.append(element("p", "✓ No stage is slower than it was under the same load.", "calm"));
}

function cache({ total, recent }) {
  const tiers = recent.tiers.map((it) => [it.tier, share(ratio(it.hits, it.hits + it.misses)), count(it.hits), count(it.misses), count(it.failures), count(it.lost), bytes(it.held_bytes)]);
  const inputs = recent.prepared_inputs;
  if (inputs) tiers.push(["prepared inputs", share(ratio(inputs.hits, inputs.hits + inputs.misses)), count(inputs.hits), count(inputs.misses), "–", "–", bytes(inputs.held_bytes)]);
  byId("cache").hidden = tiers.length === 0;
  rows(byId("cache").querySelector("tbody"), tiers);
}

function process({ total, recent, cpu_threads: threads }) {
  const { preparing } = recent;
  facts(byId("process"), [
    ["resident memory", bytes(total.resident_bytes)],
    ["CPU threads of a batch", count(threads)],
    ["preparing threads", `${count(preparing.running)} of ${count(preparing.threads)} run`],
    ["preparing threads, busy", share(ratio(preparing.busy, recent.uptime * preparing.threads))],
    ["requests in flight", count(total.in_flight)],
  ]);
}

function show(figures) {
  const { total, recent, version } = figures;
  setState(total.draining ? "bad" : "good", total.draining ? "▲ draining" : "● serving");
  setText(byId("server"), `version ${version}, up ${duration(total.uptime)}`);
  setText(byId("covered"), `last ${duration(recent.uptime)}`);
  cards(figures);
  degradations(figures);
  models(figures);
  cache(figures);
  process(figures);
  state.previous = figures;
}

function setState(kind, text) {
  byId("state").dataset.kind = kind;
  setText(byId("state"), text);
}

// ---- the clock

async function update() {
  try {
    const headers = state.token ? { authorization: `Bearer ${state.token}` } : {};
    const response = await fetch("metrics.json", { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store", headers });
    byId("access").hidden = response.status !== 401;
    if (response.status === 401) {
      setState("bad", state.token ? "✕ the token is not known" : "✕ a token is needed");
      return;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    const figures = await response.json();
    state.lostSince = null;
    show(figures);
  } catch (error) {
    state.lostSince ??= new Date();
    setState("bad", `✕ no answer since ${state.lostSince.toLocaleTimeString("en-GB")}`);
    console.warn("metrics.json:", error);
  }
}

async function run() {
  for (;;) {
    const started = performance.now();
    if (!state.paused && !document.hidden) await update();
    await new Promise((resolve) => setTimeout(resolve, Math.max(PERIOD_MS - (performance.now() - started), 100)));
  }
}

// The token stays in this tab.
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = byId("token").value.trim();
  sessionStorage.setItem("sconce-token", state.token);
  update();
});

byId("pause").addEventListener("click", ({ currentTarget: button }) => {
  state.paused = !state.paused;
  button.setAttribute("aria-pressed", String(state.paused));
});
run();
