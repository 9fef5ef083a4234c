// Searches the queries won and lost. Without it (a gateway lets no other script run) the page shows the first of each.
const data = JSON.parse(document.getElementById("queries-data").textContent);
const by = id => document.getElementById(id);
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
      cell.textContent = text;
      line.append(cell);
    });
    return line;
  }));
  const left = one.left_out ? `; the ${one.left_out.toLocaleString("en")} with the smallest differences are in per_query.parquet` : "";
  by("queries-said").textContent = `${Math.min(shown, found.length).toLocaleString("en")} of ${found.length.toLocaleString("en")} shown${left}`;
  by("queries-more").hidden = found.length <= shown;
}
by("queries-tools").hidden = false;
for (const id of ["queries-set", "queries-kind", "queries-search"]) by(id).addEventListener("input", () => { shown = page; draw(); });
by("queries-more").addEventListener("click", () => { shown += page; draw(); });
draw();
