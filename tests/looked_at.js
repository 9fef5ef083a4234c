// Asked of a page by tests/looked_at.py.
({
  // Visible text whose contrast with what lies behind it is below AA: 4.5, or 3 of large text.
  contrast: () => {
  const rgba = text => { const n = text.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = c => { const l = c.slice(0, 3).map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches && getComputedStyle(document.documentElement).colorScheme.includes("dark");
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walk.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName) || !element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), chain = [];
    for (let e = element; e; e = e.parentElement) chain.push(getComputedStyle(e));
    let behind = dark ? [18, 18, 18, 1] : [255, 255, 255, 1];
    for (const s of chain.slice().reverse()) behind = over(rgba(s.backgroundColor), behind);
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    ink[3] *= chain.reduce((all, s) => all * Number(s.opacity), 1);
    const [a, b] = [light(over(ink, behind)), light(behind)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + .05) / (b + .05);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return found;
},
  // What Tab must reach, each with a mark of its own; what scrolls sideways is among them.
  mark: () => {
  const scrolls = e => e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX) && !e.querySelector("a, button, input");
  const wanted = [...document.querySelectorAll("*")].filter(e => e.checkVisibility({visibilityProperty: true}) &&
    (e.matches("a[href], button, input, select, textarea, summary") || scrolls(e)) && !e.disabled);
  wanted.forEach((e, n) => e.setAttribute("data-wanted", n));
  return wanted.map(e => `${e.tagName.toLowerCase()} ${(e.textContent || e.id).trim().slice(0, 30)}`);
},
  // The mark of what has the focus, and whether that is seen.
  focused: () => { const e = document.activeElement, s = getComputedStyle(e);
  return [e.getAttribute("data-wanted"), s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0]; },
  // What a screen reader would miss.
  nameless: () => {
  const named = e => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim();
  const faults = [...document.querySelectorAll("svg, img, input, select, textarea, button, a[href], [role=group]")].filter(e => !named(e)).map(e => e.outerHTML.slice(0, 80));
  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title) faults.push("no title");
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
  const ids = [...document.querySelectorAll("body > :not(svg) [id]")].filter(e => !e.closest("svg")).map(e => e.id);
  faults.push(...ids.filter((id, n) => ids.indexOf(id) !== n).map(id => `id ${id} twice`));
  return faults;
},
  // What is wider than the window, outside of what scrolls alone.
  widest: width => [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest(".wide, .expectations, pre"))
    .slice(0, 4).map(e => e.outerHTML.slice(0, 90)),
})
