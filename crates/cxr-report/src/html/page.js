"use strict";

// Tables: a click on a heading sorts by it, a second one the other way round. Means stay last.
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return { text: "", number: NaN };
    const text = cell.textContent.trim();
    const figure = text.replace("−", "-").match(/^[+-]?\d[\d,]*(\.\d+)?(?=$|[\s%(])/);
    return { text, number: figure ? parseFloat(figure[0].replace(/,/g, "")) : NaN };
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      // Figures are wanted from the highest down first, names from A.
      const before = heading.getAttribute("aria-sort");
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      const order = before === first ? second : first;
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      // A column with anything but figures and dashes is one of words.
      const isWords = rows.some(([cell]) => isNaN(cell.number) && cell.text !== "–" && cell.text !== "");
      rows.sort(([a], [b]) => {
        if (column === 0 || isWords || (isNaN(a.number) && isNaN(b.number))) {
          return sign * a.text.localeCompare(b.text, "en", { numeric: true });
        }
        // What is undefined stands last in both orders.
        if (isNaN(a.number)) return 1;
        if (isNaN(b.number)) return -1;
        return sign * (a.number - b.number);
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// ROC curves: the one that is pointed at, or chosen in the legend, stands out and says what it is.
for (const drawing of document.querySelectorAll("svg.drawing")) {
  const curves = [...drawing.querySelectorAll(".roc")];
  if (curves.length === 0) continue;
  const keys = [...drawing.querySelectorAll(".roc-key")];
  const readout = drawing.closest("figure").querySelector(".readout");
  const invitation = "Point at a curve or a finding.";
  readout.textContent = invitation;
  const frame = drawing.querySelector(".roc-frame").dataset.frame.split(" ").map(Number);
  const choose = (at, event) => {
    const curve = curves.find((other) => other.dataset.at === at);
    drawing.classList.toggle("chosen", Boolean(curve));
    for (const element of [...curves, ...keys]) {
      element.classList.toggle("is-chosen", element.dataset.at === at);
    }
    if (!curve) {
      readout.textContent = invitation;
      return;
    }
    let text = curve.dataset.about;
    if (event && event.target.classList.contains("hit")) {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
      const [left, top, width, height] = frame;
      const share = (value) => Math.min(1, Math.max(0, value)).toFixed(2);
      const falsePositives = share((place.x - left) / width);
      const truePositives = share((top + height - place.y) / height);
      text += ` · here about ${truePositives} sensitivity at ${falsePositives} false positives`;
    }
    readout.textContent = text;
  };
  for (const element of [...curves, ...keys]) {
    for (const kind of ["pointermove", "click"]) {
      element.addEventListener(kind, (event) => choose(element.dataset.at, event));
    }
  }
  for (const key of keys) {
    key.setAttribute("tabindex", "0");
    key.addEventListener("focus", () => choose(key.dataset.at));
    key.addEventListener("blur", () => choose(null));
  }
  drawing.addEventListener("pointerleave", () => choose(null));
}

// The gallery: how strongly heat maps cover their pictures.
for (const gallery of document.querySelectorAll(".gallery")) {
  const strength = gallery.querySelector("input");
  strength.addEventListener("input", () => {
    gallery.style.setProperty("--strength", String(strength.value / 100));
  });
}
