// The scorecard is a plain table; with this script its columns sort and its rows filter.
"use strict";

const table = document.querySelector(".scorecard-page #scorecard");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const names = headers.map((header) => header.textContent.trim());
  const text = (row, column) => row.cells[column].textContent.trim();
  const number = /^-?\d*\.?\d+( to .+)?$/;

  function compare(a, b) {
    return number.test(a) && number.test(b) ? parseFloat(a) - parseFloat(b) : a.localeCompare(b, "en", { numeric: true });
  }

  function sort(column) {
    const down = headers[column].getAttribute("aria-sort") === "ascending";
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((first, second) => {
      const a = text(first, column), b = text(second, column);
      if (!a || !b) return !a - !b; // blanks last, either way
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
  }

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(column));
    header.append(button);
  });

  const form = document.createElement("form");
  form.className = "filters";
  const selects = ["paper", "tier", "verdict", "reading"].map((name) => {
    const column = names.indexOf(name);
    const select = document.createElement("select");
    select.name = name;
    select.add(new Option("all", ""));
    [...new Set(rows.map((row) => text(row, column)))].forEach((value) => select.add(new Option(value)));
    const label = document.createElement("label");
    label.append(name, " ", select);
    form.append(label);
    return [column, select];
  });
  const status = document.createElement("output");
  form.append(status);

  function filter() {
    rows.forEach((row) => {
      row.hidden = !selects.every(([column, select]) => !select.value || text(row, column) === select.value);
    });
    status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.parentElement.before(form);
  filter();
}
