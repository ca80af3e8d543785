// table - one map as a table: filtered, sorted, a page at a time, so that the document stays small
// however long the map is.

const stacked = matchMedia("(max-width: 900px)"); // page.css: a row is a few lines, and the page scrolls instead of the table
const pageRows = () => (stacked.matches ? 25 : 100);

class MapTable {
  // columns: { title, value(row): what is sorted by, fill(td, row), number?, hint? }; the first is
  // the row's head. The roles are said, since page.css makes grids of the rows where there is no
  // room for columns. rows(): all there are.
  constructor(name, noun, columns, rows) {
    Object.assign(this, { name, noun, columns, rows, page: 0, sort: 0, down: false, shown: [] });
    this.filter = byId(`${name}-filter`);
    this.body = byId(`${name}-table`).tBodies[0];
    this.heads = columns.map((column, i) => this.head(column, i));
    byId(`${name}-table`).tHead.rows[0].append(...this.heads);
    this.pagers = [...byId(name).querySelectorAll(".pager")].map((place) => this.makePager(place));
    const counted = byId(`${name}-count`);
    this.filter.addEventListener("focus", () => counted.setAttribute("aria-live", "polite"));
    this.filter.addEventListener("blur", () => counted.removeAttribute("aria-live"));
    this.filter.addEventListener("input", () => { this.page = 0; view.write(); this.draw(); });
    byId(`${name}-peer`).addEventListener("click", () => { choosePeer(""); this.filter.focus(); });
    stacked.addEventListener("change", () => { this.page = 0; touch(name); });
    renderers[name] = () => this.draw();
  }

  head(column, i) {
    const button = make("button", { type: "button" }, column.title);
    if (column.hint) button.title = column.hint;
    button.addEventListener("click", () => {
      this.down = this.sort === i && !this.down;
      this.sort = i;
      view.write();
      this.draw();
    });
    return make("th", { scope: "col", role: "columnheader", "data-column": column.title, class: column.number ? "number" : "" }, button);
  }

  // Above the rows, which have many stops for the keyboard; and below where the page scrolls.
  makePager(place) {
    const step = (label, name, by) => {
      const button = make("button", { type: "button", "aria-label": name }, label);
      button.addEventListener("click", (event) => {
        this.page += by;
        this.draw();
        if (button.disabled) (by > 0 ? previous : next).focus();
        this.toTop(event.detail > 0);
      });
      return button;
    };
    const previous = step("‹", `Previous page of ${this.noun}s`, -1), next = step("›", `Next page of ${this.noun}s`, 1), where = make("span");
    place.append(previous, where, next);
    return { place, previous, where, next };
  }

  // A new page is read from its top; but what the keyboard has the focus on stays in view.
  toTop(byPointer) {
    byId(`${this.name}-table`).parentElement.scrollTop = 0;
    if (byPointer && stacked.matches) byId(this.name).scrollIntoView();
  }

  // Every word of the filter must be somewhere in the row.
  select() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean), found = [];
    const { value } = this.columns[this.sort];
    this.all = this.rows();
    for (const row of this.all) {
      if (view.peer && (row.peer_id ?? row.peer) !== view.peer) continue;
      if (words.every((word) => row.text.includes(word))) found.push({ row, by: value(row) });
    }
    const sign = this.down ? -1 : 1;
    found.sort((a, b) => (a.by < b.by ? -sign : a.by > b.by ? sign : a.row.key < b.row.key ? -1 : 1));
    this.shown = found;
  }

  draw() {
    this.select();
    const pages = Math.max(1, Math.ceil(this.shown.length / pageRows()));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const first = this.page * pageRows(), part = this.shown.slice(first, first + pageRows());
    this.drawRows(part);
    this.drawBar(first, part.length, pages);
    this.heads.forEach((th, i) => {
      if (i === this.sort) th.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
  }

  drawRows(part) {
    while (this.body.rows.length > part.length) this.body.lastElementChild.remove();
    while (this.body.rows.length < part.length) {
      const tr = make("tr", { role: "row" });
      for (const [i, { title, number }] of this.columns.entries())
        tr.append(make(i ? "td" : "th", { ...(i ? { role: "cell" } : { role: "rowheader", scope: "row" }), "data-column": title, class: number ? "number" : "" }));
      this.body.append(tr);
    }
    part.forEach(({ row }, i) => {
      const tr = this.body.rows[i];
      tr.classList.toggle("fresh", Date.now() - (row.fresh ?? 0) < 5000);
      this.columns.forEach((column, c) => column.fill(tr.cells[c], row));
    });
  }

  drawBar(first, n, pages) {
    const all = this.all.length, found = this.shown.length;
    setText(byId(`${this.name}-count`), found === all ? many(all, this.noun) : `${count(found)} of ${many(all, this.noun)}`);
    for (const { place, previous, where, next } of this.pagers) {
      setText(where, `${count(first + 1)}–${count(first + n)} of ${count(found)}`);
      place.hidden = pages === 1;
      previous.disabled = this.page === 0;
      next.disabled = this.page === pages - 1;
    }
    byId(`${this.name}-none`).hidden = found > 0;
    setText(byId(`${this.name}-none`), all ? `No ${this.noun} is like that.` : `No ${this.noun} is known.`);
    const only = byId(`${this.name}-peer`);
    only.hidden = !view.peer;
    setText(only, view.peer ? `only ${view.peer} ×` : "");
    only.setAttribute("aria-label", `Only ${view.peer}; show all peers again`);
  }
}

// ---- what is looked for is kept in the address, to be shared ----

const view = {
  peer: "", tables: {},
  write() {
    const hash = new URLSearchParams();
    if (this.peer) hash.set("peer", this.peer);
    for (const [name, table] of Object.entries(this.tables)) {
      if (table.filter.value) hash.set(name, table.filter.value);
      if (table.sort || table.down) hash.set(`${name}-by`, `${table.down ? "-" : ""}${table.columns[table.sort].title}`);
    }
    history.replaceState(null, "", hash.size ? `#${hash}` : location.pathname);
  },
  read() {
    const hash = new URLSearchParams(location.hash.slice(1));
    this.peer = hash.get("peer") ?? "";
    for (const [name, table] of Object.entries(this.tables)) {
      const by = hash.get(`${name}-by`) ?? "";
      table.filter.value = hash.get(name) ?? "";
      table.down = by.startsWith("-");
      table.sort = Math.max(0, table.columns.findIndex((c) => c.title === by.replace(/^-/, "")));
    }
  },
};

function choosePeer(id) {
  view.peer = id;
  for (const table of Object.values(view.tables)) table.page = 0;
  view.write();
  drawNow("services", "peers", "mesh");
}

// ---- the two maps ----

function fillText(td, text, code) {
  setText(td, text);
  td.classList.toggle("code", Boolean(code));
}

function fillState(td, word, why = "") {
  if (!td.firstElementChild) td.append(make("span"), make("span", { class: "why" }));
  setState(td.firstElementChild, word);
  setText(td.lastElementChild, why);
}

function fillPeer(td, id) {
  if (!td.firstElementChild) {
    const button = make("button", { type: "button", class: "link" });
    button.addEventListener("click", () => choosePeer(button.textContent === view.peer ? "" : button.textContent));
    td.append(button);
  }
  setText(td.firstElementChild, id);
}

function makeTables() {
  const seenOf = new Map(); // by peer id, as of this drawing
  const seen = (row) => (row.ip === "local" ? 0 : nodeNow() - (seenOf.get(row.peer_id) || row.last_seen));
  view.tables.services = new MapTable("services", "service", [
    { title: "name", value: (r) => r.name, fill: (td, r) => fillText(td, r.name) },
    { title: "source", value: (r) => r.ip, fill: (td, r) => fillText(td, r.ip, true) },
    { title: "peer", value: (r) => r.peer_id, fill: (td, r) => fillPeer(td, r.peer_id) },
    { title: "backend", value: (r) => r.backend_addr, fill: (td, r) => fillText(td, r.backend_addr, true) },
    { title: "state", value: (r) => r.state, fill: (td, r) => fillState(td, r.state) },
    { title: "age", number: true, hint: "Since its owner's last sign of life", value: seen,
      fill: (td, r) => fillText(td, r.ip === "local" ? "here" : ageText(seen(r))) },
  ], () => [...model.services.values()]);
  view.tables.peers = new MapTable("peers", "peer", [
    { title: "peer", value: (r) => r.peer, fill: (td, r) => fillPeer(td, r.peer) },
    { title: "address", value: (r) => r.ip, fill: (td, r) => fillText(td, r.ip, true) },
    { title: "services", number: true, value: (r) => r.services, fill: (td, r) => fillText(td, count(r.services)) },
    { title: "state", value: (r) => r.state, fill: (td, r) => fillState(td, r.state, r.error) },
    { title: "last seen", value: (r) => r.seen, fill: (td, r) => fillText(td, r.seen ? whenText(r.seen) : "never") },
    { title: "synced", number: true, hint: "Since its list last changed or was confirmed whole",
      value: (r) => -r.sync, fill: (td, r) => fillText(td, r.sync ? ageText(nodeNow() - r.sync) : "never") },
    { title: "staleness", number: true, hint: "Since its last sign of life",
      value: (r) => -r.seen, fill: (td, r) => fillText(td, r.seen ? ageText(nodeNow() - r.seen) : "never") },
    { title: "rtt", number: true, value: (r) => r.rtt || Infinity, fill: (td, r) => fillText(td, rttText(r.rtt) || "–") },
  ], () => peerRows);
  const drawPeers = renderers.peers;
  renderers.peers = () => {
    makePeerRows();
    seenOf.clear();
    for (const row of peerRows) {
      row.text = `${row.peer} ${row.ip} ${row.state}`.toLowerCase();
      seenOf.set(row.peer, row.seen);
    }
    drawPeers();
  };
}
