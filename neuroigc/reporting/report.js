"use strict";
// Makes the header cells of tables into buttons that sort; without it the tables are as written.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.matches("th, .words, .good, .fair, .bad") ? cell.textContent : null; // null: not known
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    const rows = () => [...body.rows].map((row) => [value(row, column), row]);
    button.addEventListener("click", () => {
      // Numbers start with the largest, names with the first of the alphabet; then it turns.
      const before = header.getAttribute("aria-sort");
      const words = rows().some(([key]) => typeof key === "string");
      const ascending = before ? before === "descending" : words;
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const sign = ascending ? 1 : -1;
      const ordered = rows();
      ordered.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
        return sign * (a - b);
      });
      body.append(...ordered.map(([, row]) => row));
    });
  });
  const hint = document.createElement("small");
  hint.textContent = "Choose a column’s name to sort by it.";
  table.caption.append(hint);
}
