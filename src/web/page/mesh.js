// mesh - the drawing: this node in the middle, its peers around it, and those that they have links
// with. Each is a button: the arrow keys walk from one to the next, Enter shows it alone in the
// tables.

const SVG = "http://www.w3.org/2000/svg";
const GROUP_ABOVE = 100, LABELS_BESIDE = 16;
const LABEL_PITCH = 12; // between two labels that go outwards
const CHAR = 7, NOTE_CHAR = 6.2; // widths that hardly any text exceeds
const MARGIN = 96; // for labels that go outwards
const OTHERS_NAMED = 6, BEND = 0.14; // of a line between two peers, so that it leaves the middle
const mesh = { at: 0, nodes: [], between: [] };

function svg(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

// n points on an ellipse with equal ways between them, the first at the top.
function around(cx, cy, rx, ry, n) {
  const steps = 720, lengths = [0], at = (i) => -Math.PI / 2 + (i * 2 * Math.PI) / steps;
  for (let i = 1; i <= steps; i++)
    lengths.push(lengths[i - 1] + Math.hypot(rx * (Math.cos(at(i)) - Math.cos(at(i - 1))), ry * (Math.sin(at(i)) - Math.sin(at(i - 1)))));
  let i = 0;
  return Array.from({ length: n }, (_, k) => {
    while (lengths[i + 1] <= (lengths[steps] * k) / n) i++;
    return { x: cx + rx * Math.cos(at(i)), y: cy + ry * Math.sin(at(i)), angle: Math.atan2(ry * Math.sin(at(i)), rx * Math.cos(at(i))), pitch: lengths[steps] / n };
  });
}

function shorten(text, most) { // names tend to differ at their end
  const half = Math.floor((most - 1) / 2);
  return text.length > most ? `${text.slice(0, most - 1 - half)}…${text.slice(-half)}` : text;
}

// What all names end with, from a dot on: in a drawing it would only take the room.
function commonDomain(names) {
  for (let at = names[0]?.indexOf("."); at > 0; at = names[0].indexOf(".", at + 1)) {
    const domain = names[0].slice(at);
    if (/[a-z]/i.test(domain) && names.every((name) => name.endsWith(domain))) return domain;
  }
  return "";
}

// What a peer has links with besides this node, the bad ones first.
function othersText(id) {
  const of = mesh.between.filter((b) => b.ends.includes(id)).map((b) => ({ other: b.ends[b.ends[0] === id ? 1 : 0], ...b }));
  if (!of.length) return "";
  of.sort((a, b) => LINK_ORDER.indexOf(b.state) - LINK_ORDER.indexOf(a.state) || (a.other < b.other ? -1 : 1));
  const named = of.slice(0, OTHERS_NAMED).map((b) => `${b.other} ${b.state === "live" ? rttText(b.rtt) : b.state}`.trim());
  return `, also linked with ${named.join(", ")}${of.length > named.length ? ` and ${count(of.length - named.length)} more` : ""}`;
}

function peerNode(row) {
  return {
    id: row.peer, label: row.peer, link: row.link, pressed: view.peer === row.peer,
    edge: row.link === "live" ? rttText(row.rtt) : row.state, note: many(row.services, "service"),
    speak: `${row.peer}, ${row.state}, ${many(row.services, "service")}${row.rtt ? `, round trip ${rttText(row.rtt)}` : ""}${row.error ? `, ${row.error}` : ""}${othersText(row.peer)}`,
    choose: () => choosePeer(view.peer === row.peer ? "" : row.peer),
  };
}

function farNode(id) { // only peers speak of it
  return {
    id, label: id, link: "far", pressed: view.peer === id, edge: "", note: "no link from here",
    speak: `${id}, no link with this node${othersText(id)}`,
    choose: () => choosePeer(view.peer === id ? "" : id),
  };
}

// Above a hundred peers: one node for each state.
function meshNodes() {
  const rows = [...peerRows].sort((a, b) => (a.peer < b.peer ? -1 : 1));
  mesh.between = rows.length <= GROUP_ABOVE ? linksBetween() : [];
  if (rows.length <= GROUP_ABOVE) {
    const near = new Set(rows.map((row) => row.peer)), far = new Set(mesh.between.flatMap((b) => b.ends).filter((id) => !near.has(id)));
    const nodes = rows.map(peerNode).concat([...far].slice(0, GROUP_ABOVE - rows.length).map(farNode));
    return nodes.sort((a, b) => (a.id < b.id ? -1 : 1));
  }
  const groups = Map.groupBy ? Map.groupBy(rows, (r) => r.link) : groupBy(rows);
  return [...groups].map(([link, of]) => ({
    id: `=${link}`, label: many(of.length, "peer"), link, pressed: view.tables.peers.filter.value === link,
    edge: link, note: many(of.reduce((sum, r) => sum + r.services, 0), "service"),
    speak: `${many(of.length, "peer")} ${link}`,
    choose: () => {
      view.tables.peers.filter.value = view.tables.peers.filter.value === link ? "" : link;
      view.write();
      drawNow("peers", "mesh");
    },
  }));
}

function groupBy(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.link, [...(groups.get(row.link) ?? []), row]);
  return groups;
}

// Of the node under the mouse, or else of the one that has the focus.
function about(i = [...mesh.g.children].indexOf(document.activeElement)) {
  setText(byId("mesh-about"), mesh.nodes[i]?.speak ?? "");
}

function makeNode(i) {
  const g = svg("g", { class: "node", role: "button" });
  g.append(svg("title"), svg("circle"), svg("text"), svg("text", { class: "small" }));
  g.addEventListener("click", () => { mesh.at = i; mesh.nodes[i].choose(); });
  g.addEventListener("focus", () => { mesh.at = i; about(i); });
  g.addEventListener("mouseenter", () => about(i));
  for (const gone of ["blur", "mouseleave"]) g.addEventListener(gone, () => about());
  return g;
}

function placeLabel(g, node, point, width, beside, visible) {
  const [, , label, note] = g.children, { x, y, angle } = point;
  const cos = Math.cos(angle), flip = cos < -0.01, sideways = Math.abs(cos) > 0.35;
  const room = !beside ? MARGIN - 10 : !sideways ? 2 * Math.min(x, width - x) : flip ? x - 17 : width - x - 17;
  setText(label, shorten(node.label, Math.min(24, Math.floor(room / CHAR))));
  setText(note, node.note);
  label.style.display = visible ? "" : "none";
  note.style.display = beside && node.note.length * NOTE_CHAR < room ? "" : "none";
  for (const text of [label, note]) text.removeAttribute("transform");
  if (!beside) {
    label.setAttribute("transform", `translate(${x + 10 * cos} ${y + 10 * Math.sin(angle)}) rotate(${(angle * 180) / Math.PI + (flip ? 180 : 0)})`);
    label.setAttribute("text-anchor", flip ? "end" : "start");
    label.setAttribute("x", 0);
    label.setAttribute("y", 4);
    return;
  }
  const above = !sideways && Math.sin(angle) < 0;
  for (const [i, text] of [label, note].entries()) {
    text.setAttribute("text-anchor", !sideways ? "middle" : flip ? "end" : "start");
    text.setAttribute("x", sideways ? x + (flip ? -16 : 16) : x);
    text.setAttribute("y", (sideways ? y - 2 : above ? y - 30 : y + 26) + 14 * i);
  }
}

function placeSelf(centre, nodes) {
  const id = shorten(model.hello?.peer_id ?? "…", 16), width = 9 * id.length + 22;
  const chosen = view.peer === model.hello?.peer_id && view.peer !== "";
  const self = mesh.self, [box, text] = self.children;
  for (const [name, value] of Object.entries({ x: centre.x - width / 2, y: centre.y - 15, width, height: 30, rx: 15 })) box.setAttribute(name, value);
  text.setAttribute("x", centre.x);
  text.setAttribute("y", centre.y + 4.5);
  setText(text, id);
  self.setAttribute("aria-pressed", chosen);
  self.setAttribute("aria-label", `${model.hello?.peer_id ?? ""}, this node, with ${many(nodes.filter((node) => node.link !== "far").length, "peer")} around it`);
}

function drawMesh() {
  const root = byId("drawing"), width = root.clientWidth, height = root.clientHeight;
  if (!width) return;
  const nodes = meshNodes(), beside = nodes.length <= LABELS_BESIDE;
  const centre = { x: width / 2, y: height / 2 };
  const ring = (marginX, marginY) =>
    around(centre.x, centre.y, Math.max(40, width / 2 - marginX), Math.max(40, height / 2 - marginY), nodes.length);
  let points = ring(width < 480 ? 88 : width < 700 ? 120 : 170, beside ? 48 : MARGIN);
  const labelled = beside || points[0].pitch > LABEL_PITCH;
  if (!labelled) points = ring(20, 20); // what a node is then stands above, while it has the focus
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  while (mesh.g.childElementCount > nodes.length) { mesh.g.lastChild.remove(); mesh.edges.lastChild.remove(); }
  while (mesh.g.childElementCount < nodes.length) {
    const edge = svg("g");
    edge.append(svg("line", { class: "edge" }), svg("text", { class: "small", "text-anchor": "middle" }));
    mesh.edges.append(edge);
    mesh.g.append(makeNode(mesh.g.childElementCount));
  }
  const domain = nodes.length > 1 ? commonDomain(nodes.map((node) => node.label)) : "";
  for (const node of nodes) node.label = node.label.slice(0, node.label.length - domain.length);
  mesh.nodes = nodes;
  mesh.at = Math.min(mesh.at, Math.max(0, nodes.length - 1));
  nodes.forEach((node, i) => drawNode(node, i, points[i], centre, beside, labelled));
  drawBetween(new Map(nodes.map((node, i) => [node.id, points[i]])));
  placeSelf(centre, nodes);
  setText(byId("mesh-hint"), nodes.length ? "Choose a peer to see it alone; the arrow keys walk them." : model.node ? "No peers: none is configured, and none has come." : "");
}

// One path for each state, however many lines it has.
function drawBetween(at) {
  const paths = new Map([...mesh.chords.children].map((path) => [path.dataset.link, ""]));
  for (const { ends, link } of mesh.between) {
    const [a, b] = ends.map((id) => at.get(id));
    if (!a || !b || !paths.has(link)) continue;
    const x = (a.x + b.x) / 2 - (b.y - a.y) * BEND, y = (a.y + b.y) / 2 + (b.x - a.x) * BEND;
    paths.set(link, `${paths.get(link)}M${a.x} ${a.y}Q${x} ${y} ${b.x} ${b.y}`);
  }
  for (const path of mesh.chords.children) path.setAttribute("d", paths.get(path.dataset.link));
}

function drawNode(node, i, point, centre, beside, labelled) {
  const g = mesh.g.children[i], [title, circle] = g.children;
  const [line, word] = mesh.edges.children[i].children;
  g.dataset.link = line.dataset.link = node.link;
  g.dataset.peer = node.id;
  g.setAttribute("aria-label", node.speak);
  g.setAttribute("aria-pressed", node.pressed);
  g.setAttribute("tabindex", i === mesh.at ? 0 : -1);
  setText(title, node.speak);
  circle.setAttribute("cx", point.x);
  circle.setAttribute("cy", point.y);
  circle.setAttribute("r", beside ? 11 : Math.max(2.5, Math.min(6, point.pitch / 2.6)));
  for (const [name, value] of Object.entries({ x1: centre.x, y1: centre.y, x2: point.x, y2: point.y })) line.setAttribute(name, value);
  placeLabel(g, node, point, 2 * centre.x, beside, labelled);
  word.style.display = beside && Math.hypot(point.x - centre.x, point.y - centre.y) > 90 ? "" : "none";
  word.setAttribute("x", centre.x + (point.x - centre.x) * 0.62);
  word.setAttribute("y", centre.y + (point.y - centre.y) * 0.62 - 5);
  setText(word, node.edge);
}

function walkMesh(event) {
  const n = mesh.nodes.length, step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const node = event.target.closest(".node");
  if (!node) return;
  if (event.key === "Enter" || event.key === " ") node.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  else if (event.key === "Escape") choosePeer("");
  else if (n && (step || event.key === "Home" || event.key === "End")) {
    mesh.at = event.key === "Home" ? 0 : event.key === "End" ? n - 1 : (mesh.at + step + n) % n;
    drawMesh();
    mesh.g.children[mesh.at].focus();
  } else return;
  event.preventDefault();
}

function makeMesh() {
  mesh.chords = svg("g", { "aria-hidden": "true" });
  for (const state of new Set(LINK_ORDER.map(drawnLink))) mesh.chords.append(svg("path", { class: "edge chord", "data-link": state }));
  mesh.edges = svg("g", { "aria-hidden": "true" });
  mesh.g = svg("g");
  mesh.self = svg("g", { class: "node self", role: "button", tabindex: 0 });
  mesh.self.append(svg("rect"), svg("text", { "text-anchor": "middle" }));
  mesh.self.addEventListener("click", () => choosePeer(view.peer === model.hello?.peer_id ? "" : model.hello?.peer_id ?? ""));
  byId("drawing").append(mesh.chords, mesh.edges, mesh.self, mesh.g);
  byId("drawing").addEventListener("keydown", walkMesh);
  renderers.mesh = drawMesh;
  new ResizeObserver(() => touch("mesh")).observe(byId("drawing"));
}
