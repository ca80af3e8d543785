"use strict";
// model - what the node has told: both maps, itself, what happened; and when to draw it.

const model = {
  hello: null, revision: 0,
  services: new Map(), // rows by key
  peers: new Map(),    // rows by source label
  node: null, limits: [],
  changes: [],         // the newest first
  rates: [],           // one entry a second, the newest last
  clockAhead: 0,       // the node's clock less ours, in seconds
  nodeAt: 0,           // when it last spoke of itself, by our clock
};
const CHANGES_KEPT = 200, RATES_KEPT = 120;

// ---- drawing: what has changed is drawn together, seldom enough to leave time for the user ----

const renderers = {}, ORDER = ["peers", "services", "mesh"]; // what others look at is drawn first
const drawing = { dirty: new Set(), timer: 0, cost: 0, last: 0 };

function touch(...what) {
  for (const name of what) drawing.dirty.add(name);
  if (drawing.timer) return;
  const pause = Math.max(drawing.cost * 8, 200) - (performance.now() - drawing.last);
  drawing.timer = setTimeout(() => requestAnimationFrame(draw), Math.max(pause, 0));
}

function draw() {
  const started = performance.now(), names = [...ORDER.filter((name) => drawing.dirty.delete(name)), ...drawing.dirty];
  drawing.dirty.clear();
  drawing.timer = 0;
  for (const name of names) renderers[name]?.();
  drawing.last = performance.now();
  drawing.cost = drawing.last - started;
}

function drawNow(...what) { // after the user did something
  for (const name of what) renderers[name]?.();
}

// ---- words ----

const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const many = (n, one, more) => `${count(n)} ${n === 1 ? one : more ?? one + "s"}`;
const nodeNow = () => Date.now() / 1000 + model.clockAhead;
const clockText = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

function whenText(seconds) { // with its day, if that is another
  const then = new Date(seconds * 1000), today = then.toDateString() === new Date().toDateString();
  return today ? clockText(seconds) : `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clockText(seconds)}`;
}

function ageText(seconds) {
  const s = Math.max(0, seconds);
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

function rttText(us) {
  if (!us) return "";
  return us < 10000 ? `${(us / 1000).toFixed(2)} ms` : `${Math.round(us / 1000)} ms`;
}

function bytesText(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
  return `${n < 10 && unit ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

// The word for a row's state, as meshcat has it, and how good it is.
function serviceState(row) {
  if (row.stale) return "stale";
  if (!row.connected) return "down";
  if (row.draining) return "draining";
  if (!row.healthy) return "unhealthy";
  return row.ip === "local" ? "local" : "connected";
}

const STATE_TONES = {
  local: "good", connected: "good", live: "good", came: "good",
  stale: "warn", suspect: "warn", draining: "warn", "down": "idle",
  unhealthy: "bad", refused: "bad", went: "bad",
  "link live": "good", "link suspect": "warn", "link lost": "warn", "link refused": "bad",
  "dial failed": "warn", "peer gone": "bad", "backend down": "bad", "backend up": "good",
  dialling: "busy", opening: "busy", syncing: "busy", changed: "busy", parked: "idle",
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setState(element, word) {
  setText(element, word);
  element.className = "state";
  element.dataset.state = STATE_TONES[word] ?? "idle";
}

// Text goes in as text: what strangers named can never be markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ---- peers: what the map says of them and what the links say ----

const LINK_ORDER = ["live", "suspect", "syncing", "opening", "dialling", "refused", "parked"];
let peerRows = [];

function bestLinks() {
  const best = new Map();
  for (const link of model.node?.links ?? []) {
    const key = link.peer_id || link.configured || link.address;
    const other = best.get(key);
    if (!other || LINK_ORDER.indexOf(link.state) < LINK_ORDER.indexOf(other.state)) best.set(key, link);
  }
  return best;
}

function peerRow(peer, link, now) {
  const up = link && (link.state === "live" || link.state === "suspect");
  const state = peer?.stale && !up ? "stale" : link?.state ?? (peer.connected ? "connected" : "down");
  const seen = up ? now - link.silent_ms / 1000 : peer?.last_seen || 0;
  return {
    key: peer?.peer_ip ?? link.configured ?? link.address,
    peer: peer?.peer_id || link?.peer_id || link.configured || link.address,
    ip: peer?.peer_ip ?? link?.address ?? "",
    services: peer?.services_total ?? 0,
    state: peer?.draining && state === "live" ? "draining" : state,
    link: drawnLink(state),
    seen, sync: peer?.last_sync || 0, rtt: link?.rtt_us ?? 0,
    error: up ? "" : link?.last_error ?? "",
  };
}

const drawnLink = (state) => (state === "opening" || state === "syncing" ? "dialling" : state);

// The links between others, as the peers say: the best of what one end says, the worse of both ends.
function linksBetween() {
  const self = model.hello?.peer_id, between = new Map(), worse = (a, b) => LINK_ORDER.indexOf(a) > LINK_ORDER.indexOf(b);
  for (const link of bestLinks().values()) {
    const said = new Map();
    for (const { peer_id, state, rtt_us } of link.neighbours)
      if (peer_id !== self && (!said.has(peer_id) || worse(said.get(peer_id).state, state))) said.set(peer_id, { state, rtt: rtt_us });
    for (const [other, { state, rtt }] of said) {
      const ends = [link.peer_id, other].sort(), key = ends.join("\n"), known = between.get(key);
      if (!known || worse(state, known.state)) between.set(key, { ends, state, link: drawnLink(state), rtt });
    }
  }
  return [...between.values()];
}

function makePeerRows() {
  const links = bestLinks(), now = nodeNow(), rows = [];
  for (const peer of model.peers.values()) {
    rows.push(peerRow(peer, links.get(peer.peer_id), now));
    links.delete(peer.peer_id);
  }
  for (const link of links.values()) rows.push(peerRow(null, link, now));
  peerRows = rows;
}

// ---- events ----

let incoming = null; // a picture that is not whole yet

function addChanges(entries) { // sort is stable: of one second the last told stays in front
  model.changes = entries.concat(model.changes).sort((a, b) => b.when - a.when).slice(0, CHANGES_KEPT);
  touch("changes");
}

const WORDS = { up: "came", changed: "changed", down: "went" };

const ALIKE_SHOWN = 5; // changes of one peer's services, when they come together and are alike

// events: { kind, row, why }; what they are in the list of changes.
function listChanges(events) {
  const when = Math.floor(nodeNow()), groups = new Map(); // whole seconds, as the node tells its own
  for (const { kind, row, why } of events) {
    const note = [kind === "changed" ? row.state : "", why].filter(Boolean).join(", ");
    const key = `${kind} ${row.peer_id} ${note}`;
    if (!groups.has(key)) groups.set(key, { word: WORDS[kind] ?? kind, peer: row.peer_id, note, rows: [] });
    groups.get(key).rows.push(row);
  }
  const entries = [];
  for (const { word, peer, note, rows } of groups.values()) {
    if (rows.length > ALIKE_SHOWN)
      entries.push({ when, word, text: many(rows.length, "service"), why: `of ${peer}${note ? `, ${note}` : ""}` });
    else
      for (const row of rows)
        entries.push({ when, word, text: row.key, why: [word === "went" ? "" : row.backend_addr, note].filter(Boolean).join(", ") });
  }
  addChanges(entries.reverse());
}

// What differs between the picture shown and the one that has just come.
function compare(before, after, why) {
  const events = [];
  for (const [key, row] of before) if (!after.has(key)) events.push({ kind: "down", row, why });
  for (const [key, row] of after) {
    const old = before.get(key);
    if (!old) events.push({ kind: "up", row, why });
    else if (old.backend_addr !== row.backend_addr || old.state !== row.state) events.push({ kind: "changed", row, why });
  }
  return events;
}

async function tellEarlier() { // what went before anybody looked
  try {
    const { tombstones } = await (await fetch("/v1/node")).json();
    addChanges(tombstones.map((t) => ({ when: t.when, word: "went", text: t.key, why: t.why })));
  } catch { /* cut off already, which is said */ }
}

function prepare(row) { // what sorting and filtering look at
  row.state = serviceState(row);
  row.text = `${row.name} ${row.ip} ${row.peer_id} ${row.backend_addr} ${row.state}`.toLowerCase();
  return row;
}

const handlers = {
  hello(hello) {
    incoming = { hello, services: new Map() };
  },
  rows(rows) {
    for (const row of rows) incoming.services.set(row.key, prepare(row));
  },
  synced({ revision }) {
    const sameNode = model.hello?.peer_id === incoming.hello.peer_id;
    if (sameNode)
      listChanges(compare(model.services, incoming.services, connection.cutSince ? "while not connected" : ""));
    model.hello = incoming.hello;
    model.services = incoming.services;
    model.revision = revision;
    incoming = null;
    if (!connection.heardBefore) tellEarlier();
    connection.heardBefore = true;
    connection.live();
    touch("services", "header", "tiles", "mesh", "peers");
  },
  changes({ revision, events }) {
    for (const { kind, row } of events) {
      prepare(row).fresh = Date.now();
      if (kind === "down") model.services.delete(row.key);
      else model.services.set(row.key, row);
    }
    model.revision = revision;
    listChanges(events);
    touch("services", "tiles", "header");
  },
  peers({ peer_services }) {
    model.peers = new Map(peer_services.map((peer) => [peer.peer_ip, peer]));
    touch("peers", "mesh", "tiles");
  },
  node({ node, limits }) {
    takeRates(model.node, node);
    model.node = node;
    model.nodeAt = Date.now();
    model.limits = limits;
    model.clockAhead = node.started + node.uptime_ms / 1000 - Date.now() / 1000;
    touch("header", "tiles", "peers", "mesh", "ends", "limits", "checks", "services");
  },
  beat() {}, // that it has come is all
  log({ when, kind, peer_id, text }) {
    const word = kind.replaceAll("_", " ");
    const known = model.changes.some((c) => c.when === when && c.word === word && c.peer === peer_id && c.why === text);
    if (!known) addChanges([{ when, word, peer: peer_id, text: peer_id, why: text }]);
  },
};

const counterOf = (node, name) => node?.counters.find((c) => c.name === name)?.value ?? 0;

function takeRates(before, after) {
  const sameRun = before?.incarnation === after.incarnation; // else its counters began anew
  const seconds = sameRun ? (after.uptime_ms - before.uptime_ms) / 1000 : 0;
  const per = (name) => (counterOf(after, name) - counterOf(before, name)) / seconds;
  const ends = Object.fromEntries(after.counters.filter((c) => c.name.startsWith("forward_end_")).map((c) => [c.name, c.value]));
  if (!sameRun) model.rates = [];
  if (seconds > 0)
    model.rates.push({ forwards: per("forward_accepted"), up: per("forward_bytes_up"), down: per("forward_bytes_down"), ends });
  if (model.rates.length > RATES_KEPT) model.rates.shift();
}

// ---- the connection: it is said when what is shown is old ----

const SILENCE_MS = 8000; // the node speaks once a second

const connection = {
  source: null, opened: 0, heard: 0, heardBefore: false, cutSince: 0, state: "waiting",
  open() {
    const source = new EventSource("/events");
    this.source = source;
    this.opened = performance.now();
    for (const [name, handle] of Object.entries(handlers))
      source.addEventListener(name, (event) => {
        this.heard = Date.now();
        handle(JSON.parse(event.data));
      });
    source.onopen = () => { this.opened = performance.now(); };
    source.onerror = () => this.lost();
  },
  live() {
    this.cutSince = 0;
    model.nodeAt = Date.now(); // it has its time from now on
    this.say("good", "live");
  },
  lost() {
    if (this.source.readyState === EventSource.CLOSED) // a plain refusal is final for EventSource
      setTimeout(() => this.open(), 2000);
    this.cutOff();
  },
  cutOff() {
    if (this.cutSince) return;
    this.cutSince = this.heard || Date.now();
    this.say("bad", this.heard
      ? `connection lost, trying again; what you see is from ${whenText(this.heard / 1000)}`
      : "no connection, trying again");
  },
  say(state, text) {
    this.state = state;
    byId("connection").dataset.state = state;
    setText(byId("connection"), text);
    document.documentElement.toggleAttribute("data-old", state !== "good");
    drawNow("header");
  },
  watch() { // a connection may be dead and not closed
    const silent = performance.now() - this.opened > SILENCE_MS && Date.now() - this.heard > SILENCE_MS;
    if (!silent || this.source.readyState !== EventSource.OPEN) return;
    this.source.close();
    this.cutOff();
    this.open();
  },
};
