// Numbers on hover: what an element's title says, and of a heat map the number under the pointer, read from the table beside it.
(() => {
  if (window.onnxLrpTips) return;
  window.onnxLrpTips = true;
  const tip = document.createElement("div");
  tip.className = "onnx-lrp-tip";
  tip.setAttribute("aria-hidden", "true");
  tip.hidden = true;

  const cell = (svg, event) => {
    const box = svg.getBoundingClientRect();
    const rows = svg.closest("figure").querySelector("table").rows; // the figure's own: maps have one each
    const [width, height] = [+svg.dataset.width, +svg.dataset.height];
    const at = (part, whole, count) => Math.max(0, Math.min(count - 1, Math.floor((part / whole) * count)));
    const x = at(event.clientX - box.left - svg.clientLeft, svg.clientWidth, width);
    const y = at(event.clientY - box.top - svg.clientTop, svg.clientHeight, height);
    const turned = svg.dataset.turned === "1";
    const text = (cell) => cell.textContent.trim();
    const row = rows[(turned ? x : y) + 1];
    const step = `${svg.dataset.unit} ${text(row.cells[0])}`;
    const last = row.cells.length - 1;
    if ("sums" in svg.dataset) return `${step}\nall features ${text(row.cells[last])}`;
    const column = (turned ? y : x) + 1;
    const number = row.cells[column];
    const word = svg.dataset.column ? `${svg.dataset.column} ` : "";
    const name = `${word}${text(rows[0].cells[column])}`;
    return `${step}${last > 1 ? `\n${name}` : ""} ${text(number)}${number.dataset.read ? `\ninput ${number.dataset.read}` : ""}`;
  };

  const said = (from) => {
    for (let e = from; e && !e.classList.contains("onnx-lrp"); e = e.parentElement) {
      if (e.dataset.tip) return e.dataset.tip;
      if (e.classList.contains("w") && !e.title) return `${e.querySelector("bdi").textContent}: ${e.querySelector("small").textContent}`;
      const title = e.ownerSVGElement ? e.querySelector(":scope > title") : null;
      const text = title ? title.textContent : e.getAttribute("title");
      if (!text) continue;
      e.dataset.tip = text; // the browser's own tip would show as well
      if (title) title.remove();
      else e.removeAttribute("title");
      return text;
    }
    return "";
  };

  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const from = event.target;
    const root = from instanceof Element ? from.closest(".onnx-lrp") : null;
    if (!root) return hide();
    const svg = from.closest("svg[data-width]");
    const text = svg ? cell(svg, event) : said(from);
    if (!text) return hide();
    if (tip.parentElement !== root) root.append(tip);
    if (tip.textContent !== text) tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = event.clientX + 14 + width > innerWidth;
    const below = event.clientY + 18 + height > innerHeight;
    tip.style.left = `${Math.max(4, right ? event.clientX - 14 - width : event.clientX + 14)}px`;
    tip.style.top = `${Math.max(4, below ? event.clientY - 12 - height : event.clientY + 18)}px`;
  };
  for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, show, { passive: true });
  document.addEventListener("pointerleave", hide);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
