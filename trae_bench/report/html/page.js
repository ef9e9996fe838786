"use strict";
// Optional: adds sorting, filtering, a theme switch and saving.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // -- theme, for this visit only
  const theme = one("#theme");
  const root = document.documentElement;
  const dark = () =>
    (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";
  const press = () => theme.setAttribute("aria-pressed", String(dark()));
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    press();
  });
  press();

  // -- table
  const table = one("#table");
  if (table) {
    roles(table);
    sortable(table);
    filterable(table);
  }

  // On a narrow screen rows are laid out as cards, and some screen readers lose the table's roles.
  function roles(table) {
    const give = (selector, role) => all(selector, table).forEach((element) => element.setAttribute("role", role));
    table.setAttribute("role", "table");
    give("thead, tbody", "rowgroup");
    give("tr", "row");
    give("td", "cell");
    give("tbody th", "rowheader");
    give("thead th", "columnheader");
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const order = new Map([...body.rows].map((row, place) => [row, place]));
    for (const head of all("th[data-key]", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(head));
    }

    function sort(head) {
      // Ascending, descending, then the order of the run.
      const next = { ascending: "descending", descending: null };
      const old = head.getAttribute("aria-sort");
      const direction = old ? next[old] : "ascending";
      all("th[aria-sort]", table).forEach((cell) => cell.removeAttribute("aria-sort"));
      if (direction) head.setAttribute("aria-sort", direction);
      table.classList.toggle("sorted", Boolean(direction));
      const keys = new Map([...body.rows].map((row) => [row, key(row.cells[head.cellIndex])]));
      const sign = direction === "descending" ? -1 : 1;
      const compare = (a, b) =>
        (direction && against(keys.get(a), keys.get(b), sign)) || order.get(a) - order.get(b);
      body.append(...[...body.rows].sort(compare));
    }

    function key(cell) {
      if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
      return cell.matches("th") ? cell.textContent : null;
    }

    // Missing values come last in both directions.
    function against(a, b, sign) {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    }
  }

  function filterable(table) {
    const form = one("#filters");
    const rows = [...table.tBodies[0].rows];
    const places = new Map(all("th[data-key]", table).map((head) => [head.dataset.key, head.cellIndex]));
    const search = form.querySelector("input");
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    // The cell of a verdict may also contain "for information".
    const text = (cell) => (cell.querySelector(".verdict") ?? cell).textContent;

    function filter() {
      const words = search.value.toLowerCase().split(/\s+/);
      const chosen = all("select", form).filter((select) => select.value);
      let shown = 0;
      for (const row of rows) {
        const fits =
          words.every((word) => texts.get(row).includes(word)) &&
          chosen.every((select) => text(row.cells[places.get(select.dataset.filter)]) === select.value);
        row.hidden = !fits;
        shown += fits;
      }
      one("#shown").textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    }

    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    filter();
  }

  // -- saving
  const raw = one("#raw").textContent;
  one("#scriptless").hidden = true;
  one(".actions").hidden = false;
  for (const button of all("[data-save]")) {
    button.addEventListener("click", () => {
      const csv = button.dataset.save === "csv";
      const blob = new Blob([csv ? asCsv(JSON.parse(raw)) : raw], {
        type: csv ? "text/csv;charset=utf-8" : "application/json",
      });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `trae-bench.${button.dataset.save}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
  }

  // One line for each pair and metric. Names keep letters, digits and a few marks, so that a
  // spreadsheet does not read them as formulas.
  function asCsv(document) {
    const name = (text) => text.replace(/[^\p{L}\p{N} ._\-+/@,()]/gu, "_").replace(/^[^\p{L}\p{N}_(/]/u, "_");
    const cell = (value) => (typeof value === "string" ? `"${name(value)}"` : (value ?? ""));
    const lines = [["file", "scenario", "contrast", "mode", "pair", "void", "metric", "unit", "a", "b"]];
    for (const run of document.runs)
      for (const { scenario, contrast, mode, pairs, void: lost, metrics } of run.cells)
        for (const [metric, { a, b }] of Object.entries(metrics))
          pairs.forEach((pair, place) => {
            const unit = run.metrics[metric].unit;
            lines.push([run.file, scenario, contrast, mode, pair, lost[pair], metric, unit, a[place], b[place]]);
          });
    return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
  }

  // -- printing: open folded sections
  const folded = new Set();
  addEventListener("beforeprint", () => {
    for (const details of all("details:not([open])")) {
      folded.add(details);
      details.open = true;
    }
  });
  addEventListener("afterprint", () => {
    folded.forEach((details) => (details.open = false));
    folded.clear();
  });
})();
