// Browses the texts of one or two runs: all of them are in the page, a page of them is in the document.
const PER_PAGE = 50, MOST = 1000, FEW = 200;
const runs = JSON.parse(document.getElementById("data").textContent);
const toolbar = document.getElementById("filters"), search = document.getElementById("search");
const lists = document.getElementById("lists"), count = document.getElementById("count");
const told = document.getElementById("told"), steps = document.getElementById("steps");
const element = (name, text, attributes = {}) => {
  const made = Object.assign(document.createElement(name), attributes);
  if (text !== undefined) { made.textContent = text; }
  return made;
};

// what is searched, once for each text
for (const run of runs) {
  for (const row of run.rows) { row.searched = `${row.text} ${row.tags.map(String).join(" ")}`.toLowerCase(); }
}

// one choice for each column with few values, and for the run
const columns = [...new Set(runs.flatMap(run => run.columns))];
const valueOf = (run, row, column) => String(row.tags[run.columns.indexOf(column)] ?? "\u2013");
const choices = new Map();
function choice(name, values) {
  const label = element("label", `${name} `), select = element("select", undefined, {name});
  select.append(element("option", "all", {value: ""}));
  values.forEach((value, number) => select.append(element("option", value, {value: String(number + 1)})));
  select.addEventListener("change", () => show(0));
  label.append(select);
  toolbar.append(label);
  return () => select.value === "" ? null : values[Number(select.value) - 1];
}
const ofRun = runs.length > 1 ? choice("run", runs.map(run => run.name)) : () => null;
for (const column of columns) {
  const values = [...new Set(runs.flatMap(run => run.rows.map(row => valueOf(run, row, column))))];
  if (values.length > 1 && values.length <= FEW) {
    choices.set(column, choice(column, values.sort((a, b) => a.localeCompare(b, undefined, {numeric: true}))));
  }
}

let page = 0, pages = 1;
function found(run) {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = [...choices].map(([column, chosen]) => [column, chosen()]).filter(([, value]) => value !== null);
  return run.rows.filter(row => words.every(word => row.searched.includes(word))
    && wanted.every(([column, value]) => valueOf(run, row, column) === value));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // where a page from a file may not use the clipboard
    const area = element("textarea", undefined, {value: text});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  told.textContent = "copied";
}

function item(run, row) {
  const made = element("li", undefined, {tabIndex: 0, dir: "auto"}), body = element("p", row.text.slice(0, MOST));
  made.row = row;
  made.append(body);
  if (row.text.length > MOST) {
    const more = element("button", `\u2026 all ${row.text.length.toLocaleString("en")} characters`, {type: "button"});
    more.addEventListener("click", () => { body.textContent = row.text; more.remove(); });
    made.append(more);
  }
  const line = element("div", undefined, {className: "tags", dir: "ltr"});
  run.columns.forEach((column, number) => {
    if (row.tags[number] !== null) { line.append(element("span", `${column}: ${row.tags[number]}`)); }
  });
  const button = element("button", "Copy", {type: "button"});
  button.addEventListener("click", () => copy(row.text));
  line.append(button);
  made.append(line);
  if (row.near) {
    const near = element("details", undefined, {dir: "ltr"}), own = element("ul");
    near.append(element("summary", "nearest real texts (private)"), own);
    for (const [similarity, text] of row.near) {
      const real = element("li", undefined, {dir: "auto"});
      real.append(element("b", similarity.toFixed(2)), ` ${text}`);
      own.append(real);
    }
    made.append(near);
  }
  return made;
}

function show(number) {
  const shown = runs.filter(run => ofRun() === null || run.name === ofRun());
  const all = shown.map(run => [run, found(run)]);
  pages = Math.max(1, ...all.map(([, rows]) => Math.ceil(rows.length / PER_PAGE)));
  page = Math.min(Math.max(number, 0), pages - 1);
  lists.replaceChildren(...all.map(([run, rows]) => {
    const section = element("section"), list = element("ol", undefined, {start: page * PER_PAGE + 1});
    if (runs.length > 1) { section.append(element("h2", run.name)); }
    section.append(element("p", run.said, {className: "quiet"}), list);
    list.append(...rows.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(row => item(run, row)));
    if (!rows.length) { section.append(element("p", "no text matches", {className: "quiet"})); }
    return section;
  }));
  count.textContent = all.map(([run, rows]) => `${rows.length} of ${run.rows.length}`).join(" \u00b7 ") + " texts";
  steps.querySelector("span").textContent = `page ${page + 1} of ${pages}`;
  steps.querySelector("[name=back]").disabled = page === 0;
  steps.querySelector("[name=next]").disabled = page === pages - 1;
  told.textContent = "";
}
function turn(by) { show(page + by); scrollTo(0, 0); }

let waiting;
search.form.addEventListener("submit", event => event.preventDefault());
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => show(0), 120); });
steps.querySelector("[name=back]").addEventListener("click", () => turn(-1));
steps.querySelector("[name=next]").addEventListener("click", () => turn(1));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) { return; }
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") { event.target.blur(); }
    return;
  }
  const items = [...lists.querySelectorAll("ol > li")], at = items.indexOf(document.activeElement.closest("ol > li"));
  const keys = {
    "/": () => search.focus(), j: () => items[Math.min(at + 1, items.length - 1)]?.focus(),
    k: () => items[Math.max(at - 1, 0)]?.focus(), c: () => { if (at >= 0) { copy(items[at].row.text); } },
    n: () => turn(1), p: () => turn(-1),
  };
  if (Object.hasOwn(keys, event.key)) { event.preventDefault(); keys[event.key](); }
});
show(0);
