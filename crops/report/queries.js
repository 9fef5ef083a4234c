// Searches the queries won and lost. Without it (a gateway lets no other script run) the page shows the first of each.
const data = JSON.parse(document.getElementById("queries-data").textContent);
const beside = JSON.parse(document.getElementById("beside-data").textContent);
const by = id => document.getElementById(id);
const make = (name, text, kind) => { const e = document.createElement(name); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
const page = 20, each = 10;
let shown = page;
const kinds = {won: r => r[1] > r[2], lost: r => r[1] < r[2], same: r => r[1] === r[2], all: () => true};
const percent = x => (100 * x).toFixed(1);
function draw() {
  const one = data[by("queries-set").value], words = by("queries-search").value.toLowerCase().trim();
  const kind = by("queries-kind").value, rows = one.rows.filter(r => r[0].toLowerCase().includes(words));
  const found = kind === "ends"
    ? [...rows.filter(kinds.won).slice(0, each), ...rows.filter(kinds.lost).slice(0, each)] : rows.filter(kinds[kind]);
  by("queries-against").textContent = one.against_name;
  by("queries-body").replaceChildren(...found.slice(0, shown).map(r => {
    const line = document.createElement("tr"), gap = 100 * (r[1] - r[2]);
    const cells = [r[0], percent(r[1]), percent(r[2]), (gap > 0 ? "+" : gap < 0 ? "−" : "") + Math.abs(gap).toFixed(1)];
    cells.forEach((text, n) => {
      const cell = document.createElement(n ? "td" : "th");
      if (n) cell.className = n === 3 && gap ? (gap > 0 ? "n won" : "n lost") : "n"; else cell.scope = "row";
      const answers = n ? null : (beside.sets[one.set] || {})[text];
      if (answers) cell.append(opener(line, text, answers)); else cell.textContent = text;
      line.append(cell);
    });
    return line;
  }));
  const left = one.left_out ? `; the ${one.left_out.toLocaleString("en")} with the smallest differences are in per_query.parquet` : "";
  by("queries-said").textContent = `${Math.min(shown, found.length).toLocaleString("en")} of ${found.length.toLocaleString("en")} shown${left}`;
  by("queries-more").hidden = found.length <= shown;
}
// A query that opens what the systems answer to it, as a row below its own.
function opener(line, query, answers) {
  const button = make("button", query, "query");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) { line.nextElementSibling.remove(); return; }
    const row = make("tr"), cell = make("td"), columns = make("div", undefined, "sides");
    cell.colSpan = 4;
    columns.append(...beside.systems.map((system, n) => side(system, answers[n])));
    cell.append(columns);
    row.append(cell);
    line.after(row);
  });
  return button;
}
function side([name, learns], results) {
  const box = make("div"), list = make("ol");
  box.append(make("h3", name), list);
  if (!results.some(r => r[1])) box.append(make("p", results.length ? "none of these counts" : "nothing", "hint"));
  list.append(...results.map(([doc, counts, pairs, more]) => {
    const [id, caption] = beside.documents[doc], item = make("li", `${caption || id} `);
    if (counts) item.append(make("span", "✓ counts", "won"));
    if (learns && !pairs.length) item.append(make("small", "no training pair of a query that several people typed"));
    pairs.forEach(n => item.append(pair(beside.pairs[n])));
    if (more) item.append(make("small", `and ${more.toLocaleString("en")} more`));
    return item;
  }));
  return box;
}
function pair([query, perspective, label, support, later]) {
  const from = [], row = make("small");
  if (later) from.push(`through “${later}”`);
  if (support) from.push(`${support.toLocaleString("en")} × in the log`);
  if (label !== null) from.push(`label ${label}`);
  row.append(make("span", perspective, "tag"), ` ${query}${from.length ? ": " : ""}${from.join(", ")}`);
  return row;
}
by("queries-tools").hidden = false;
for (const id of ["queries-set", "queries-kind", "queries-search"]) by(id).addEventListener("input", () => { shown = page; draw(); });
by("queries-more").addEventListener("click", () => { shown += page; draw(); });
draw();
