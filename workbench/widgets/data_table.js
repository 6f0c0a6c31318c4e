// A table of numbers and plain text: sorted by its headers, rows chosen by checkboxes, every cell a text node.
function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = text;
  return node;
}

const minus = (text) => text.replace(/^-/, "−").replace(/e-/, "e−");

function show(value, digits) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return minus(value.toLocaleString("en", { useGrouping: Math.abs(value) >= 10000 }));
  return minus(String(Number(value.toPrecision(digits))));
}

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function render({ model, el }) {
  let sort = { column: -1, up: true };
  el.classList.add("wb-table-box");

  function draw() {
    const columns = model.get("columns"), rows = model.get("rows"), selectable = model.get("selectable");
    const chosen = new Set(model.get("selected"));
    const order = rows.map((_, i) => i);
    if (sort.column >= 0) order.sort((a, b) => compare(rows[a][sort.column], rows[b][sort.column]) * (sort.up ? 1 : -1));
    const table = element("table", "wb-table"), head = table.createTHead().insertRow(), body = table.createTBody();
    const caption = table.createCaption();
    caption.textContent = model.get("caption");
    if (selectable) head.append(allBox(rows, chosen));
    columns.forEach((name, i) => head.append(header(name, i)));
    for (const i of order) body.append(line(rows[i], i, selectable, chosen));
    const held = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const scroll = el.firstChild?.scrollTop ?? 0;
    const box = element("div", "wb-table-scroll");
    box.tabIndex = -1;
    box.append(table);
    el.replaceChildren(box);
    box.scrollTop = scroll;
    if (held) el.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  }

  function header(name, i) {
    const cell = element("th"), button = element("button", "", name), active = sort.column === i;
    cell.scope = "col";
    cell.setAttribute("aria-sort", active ? (sort.up ? "ascending" : "descending") : "none");
    button.dataset.key = `h${i}`;
    button.append(element("span", "wb-arrow", active ? (sort.up ? " ▲" : " ▼") : ""));
    button.onclick = () => { sort = { column: i, up: active ? !sort.up : true }; draw(); };
    cell.append(button);
    return cell;
  }

  function allBox(rows, chosen) {
    const cell = element("th"), box = element("input");
    Object.assign(box, { type: "checkbox", checked: chosen.size === rows.length && rows.length > 0, indeterminate: chosen.size > 0 && chosen.size < rows.length });
    box.setAttribute("aria-label", "all rows");
    box.dataset.key = "all";
    box.onchange = () => choose(box.checked ? rows.map((_, i) => i) : []);
    cell.append(box);
    return cell;
  }

  function line(row, i, selectable, chosen) {
    const node = element("tr", chosen.has(i) ? "wb-chosen" : "");
    if (selectable) {
      const cell = element("td"), box = element("input");
      Object.assign(box, { type: "checkbox", checked: chosen.has(i) });
      box.setAttribute("aria-label", `show ${row[0]}`);
      box.dataset.key = `r${i}`;
      box.onchange = () => choose(box.checked ? [...chosen, i] : [...chosen].filter((other) => other !== i));
      cell.append(box);
      node.append(cell);
    }
    row.forEach((value) => {
      const cell = element("td", typeof value === "number" || value == null ? "wb-number" : "", show(value, model.get("digits")));
      if (typeof value === "string" && value.length > 40) cell.title = value.slice(0, 400);
      node.append(cell);
    });
    return node;
  }

  function choose(rows) {
    model.set("selected", rows.sort((a, b) => a - b));
    model.save_changes();
  }

  model.on("change:rows", draw);
  model.on("change:selected", draw);
  draw();
  return () => { model.off("change:rows", draw); model.off("change:selected", draw); };
}

export default { render };
