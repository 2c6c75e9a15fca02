"use strict";
// A click on a heading sorts its table. Numbers are read from the text as it is shown and
// compared by sign, power of ten and mantissa, because a p value may be smaller than any double.
(function () {
  const powers = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  function key(text) {
    const words = text.replace(/,/g, "").replace(/\u00a0/g, " ").replace(/−/g, "-").split(" × 10");
    const number = parseFloat(words[0]);
    if (Number.isNaN(number)) { return [2, 0, 0]; }
    if (number === 0) { return [0, 0, 0]; }
    let power = Math.floor(Math.log10(Math.abs(number)));
    const mantissa = number / Math.pow(10, power);
    if (words.length === 2) {
      power += Number(words[1].replace("⁻", "-").replace(/[⁰¹²³⁴⁵⁶⁷⁸⁹]/g, (digit) => powers.indexOf(digit)));
    }
    const sign = Math.sign(number);
    return [sign, sign * power, mantissa];
  }
  function compare(a, b) {
    const place = a.findIndex((value, index) => value !== b[index]);
    return place < 0 ? 0 : a[place] - b[place];
  }
  document.querySelectorAll("table.sortable th").forEach(function (heading) {
    heading.addEventListener("click", function () {
      const body = heading.closest("table").tBodies[0];
      const column = heading.cellIndex;
      const numeric = heading.classList.contains("n");
      const turn = heading.dataset.order === "up" ? -1 : 1;
      heading.dataset.order = turn === 1 ? "up" : "down";
      const rows = Array.from(body.rows, (row) => [row, row.cells[column].textContent]);
      rows.sort((x, y) => turn * (numeric
        ? compare(key(x[1]), key(y[1]))
        : x[1].localeCompare(y[1], "en", { numeric: true })));
      rows.forEach((pair) => body.appendChild(pair[0]));
    });
  });
}());
