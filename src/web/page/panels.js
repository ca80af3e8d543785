// panels - the rest of the page: the header, numbers, what happened, limits, checks, explain.

renderers.header = () => {
  const { node, hello } = model, ready = byId("ready");
  if (!hello) return;
  document.title = `${connection.state === "good" ? "" : "(cut off) "}${hello.peer_id} – meshd`;
  setText(byId("self"), hello.peer_id);
  setText(byId("software"), hello.software);
  setText(byId("revision"), count(model.revision));
  // The admin port and the maps have threads of their own: they go on when the main loop does not.
  const mute = connection.state === "good" && Date.now() - model.nodeAt > SILENCE_MS;
  if (mute) {
    ready.dataset.state = "bad";
    setText(ready, "main loop does not answer");
  }
  if (!node || mute) return;
  const state = !node.nng_healthy ? "bad" : node.draining || node.ready === false ? "warn" : "good";
  ready.dataset.state = state;
  setText(ready, !node.nng_healthy ? "messaging does not answer" : node.draining ? "draining"
    : node.ready === false ? `not ready: ${node.ready_why || "starting"}` : "ready");
  setText(byId("uptime"), ageText(node.uptime_ms / 1000));
};

function setNote(tile, text, warn) {
  setText(byId(`note-${tile}`), text);
  byId(`note-${tile}`).dataset.state = warn ? "warn" : "";
}

renderers.tiles = () => {
  const { node, services, peers, rates } = model, rate = rates.at(-1);
  let local = 0, unwell = 0;
  for (const row of services.values()) {
    if (row.ip === "local") local++;
    if (!row.healthy || row.stale) unwell++;
  }
  const stale = [...peers.values()].filter((p) => p.stale).length;
  const live = node?.links.filter((l) => l.state === "live").length ?? 0;
  setText(byId("tile-services"), count(services.size));
  setNote("services", `${count(local)} local${unwell ? `, ${count(unwell)} impaired` : ""}`, unwell);
  setText(byId("tile-peers"), count(peers.size));
  setNote("peers", stale ? `${count(stale)} stale` : "none stale", stale);
  if (!node) return;
  setText(byId("tile-links"), count(live));
  setNote("links", `of ${count(node.links_total)}`);
  setText(byId("tile-active"), count(counterOf(node, "forward_relayed")));
  setNote("active", `${count(counterOf(node, "forward_pending"))} being opened`);
  setText(byId("tile-rate"), rate ? rate.forwards.toFixed(rate.forwards < 10 ? 1 : 0) : "–");
  setText(byId("tile-bytes"), rate ? bytesText(rate.up + rate.down) : "–");
  setNote("bytes", rate ? `${bytesText(rate.up)} up, ${bytesText(rate.down)} down` : "");
  drawSpark();
};

function drawSpark() {
  const values = model.rates.map((r) => r.forwards), top = Math.max(1, ...values);
  const points = values.map((v, i) => `${240 - 2 * (values.length - 1 - i)},${(38 - (36 * v) / top).toFixed(1)}`);
  const spark = byId("spark");
  if (!spark.firstChild) spark.append(svg("line", { x1: 0, y1: 38, x2: 240, y2: 38 }), svg("polyline"));
  spark.lastChild.setAttribute("points", points.join(" "));
  spark.setAttribute("aria-label", `Forwards per second, the last two minutes; at most ${top.toFixed(0)}`);
}

const CHANGES_SHOWN = 100;

renderers.changes = () => {
  const list = byId("change-list"), shown = model.changes.slice(0, CHANGES_SHOWN);
  const items = shown.map((change) => {
    const word = make("span");
    setState(word, change.word);
    return make("li", {}, make("time", {}, whenText(change.when)), word,
      make("span", {}, change.text, " ", make("span", { class: "quiet" }, change.why)));
  });
  list.replaceChildren(...(items.length ? items : [make("li", { class: "none" }, "Nothing yet.")]));
};

// Rows of plain cells: { head, cells: [text or element] }.
function fillRows(table, rows, none) {
  const columns = table.tHead.rows[0].cells;
  table.tBodies[0].replaceChildren(...rows.map(({ head, cells }) =>
    make("tr", {}, make("th", { scope: "row" }, head),
      ...cells.map((cell, i) => make("td", { class: columns[i + 1].className }, cell)))));
  if (!rows.length)
    table.tBodies[0].append(make("tr", {}, make("td", { colspan: columns.length, class: "none" }, none)));
}

renderers.ends = () => {
  const now = model.rates.at(-1)?.ends ?? {}, then = model.rates.at(-60)?.ends ?? model.rates[0]?.ends ?? {};
  const rows = Object.entries(now).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  fillRows(byId("ends-table"), rows.map(([name, n]) => ({
    head: name.replace("forward_end_", "").replaceAll("_", " "),
    cells: [count(n), count(n - (then[name] ?? 0))],
  })), "No forward has ended yet.");
};

const LIMITS_SHOWN = 8;

renderers.limits = () => {
  const share = (l) => l.used / l.limit;
  const rows = model.limits.filter((l) => l.limit && l.used).sort((a, b) => share(b) - share(a));
  fillRows(byId("limits-table"), rows.slice(0, LIMITS_SHOWN).map((l) => {
    const percent = `${(100 * share(l)).toFixed(share(l) < 0.1 ? 1 : 0)} %`, size = l.unit === "bytes" ? bytesText : count;
    const meter = make("meter", { min: 0, max: 1, low: 0.8, high: 0.95, optimum: 0, value: share(l), "aria-label": `${l.name} ${percent}` });
    return { head: l.name.replaceAll("_", " "), cells: [size(l.used), size(l.limit), make("span", { class: "share" }, meter, make("span", {}, percent))] };
  }), "Nothing is in use.");
};

renderers.checks = () => {
  const checks = model.node?.checks ?? [], list = byId("check-list");
  const items = checks.filter((c) => !c.healthy || c.draining).map((c) => {
    const word = make("span");
    setState(word, c.healthy ? "draining" : "unhealthy");
    const also = c.draining && !c.healthy ? ", draining" : "";
    return make("li", {}, word, also, ` ${c.name} `, make("span", { class: "code" }, c.backend_addr),
      make("span", { class: "quiet" }, `${c.why ? ` – ${c.why}` : ""}${c.since ? `, since ${whenText(c.since)}` : ""}`));
  });
  const well = checks.length === 1 ? "The one backend that is looked at answers." : `All ${count(checks.length)} backends that are looked at answer.`;
  const none = checks.length ? well : "No backend of this node is known to fail.";
  list.replaceChildren(...(items.length ? items : [make("li", { class: "none" }, none)]));
};

async function explain(name) {
  const verdict = byId("explain-verdict"), list = byId("explain-candidates");
  list.replaceChildren();
  try {
    const response = await fetch(`/v1/explain?name=${encodeURIComponent(name)}`);
    const reply = await response.json();
    if (reply.error) { setText(verdict, reply.error.text); return; }
    setText(verdict, reply.verdict);
    list.replaceChildren(...reply.candidates.map(({ route, chosen, why }) => {
      const word = make("span");
      setState(word, serviceState(route));
      return make("li", {}, word, ` ${route.peer_id} `, make("span", { class: "code" }, route.backend_addr),
        make("span", { class: "quiet" }, ` – ${chosen ? "chosen: " : ""}${why}`));
    }));
  } catch {
    setText(verdict, "The node does not answer; try again.");
  }
}

// ---- the beginning ----

makeTables();
makeMesh();
view.read();
addEventListener("hashchange", () => { view.read(); drawNow("services", "peers", "mesh"); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("services").focus();
});
byId("explain-form").addEventListener("submit", (event) => {
  event.preventDefault();
  explain(byId("explain-name").value.trim());
});
touch("changes", "ends", "limits", "checks", "services", "peers", "mesh");
connection.open();
setInterval(() => { connection.watch(); touch("header", "services", "peers"); }, 1000);
