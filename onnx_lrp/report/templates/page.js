// Filter, sort, colours; and paper, on which nothing is folded. The page is complete without it.
(() => {
  const start = () => {
    const root = document.body;
    const tools = document.getElementById("tools");
    const by = (name) => tools.querySelector(`[name="${name}"]`);
    const list = document.getElementById("samples");
    const items = [...list.querySelectorAll(":scope > article")];
    const words = items.map((item) => [...item.querySelectorAll("h2, bdi")].map((e) => e.textContent).join(" ").toLowerCase());
    tools.hidden = false;

    for (const name of ["scheme", "theme"]) {
      if (by(name)) by(name).addEventListener("change", (event) => { root.dataset[name] = event.target.value; });
    }

    const size = {
      score: (d) => +d.score,
      relevance: (d) => +d.relevance,
      residual: (d) => Math.abs(+d.residual),
    };
    const rank = (item, key) => {
      const value = size[key](item.dataset);
      return Number.isNaN(value) ? -Infinity : value;
    };
    const compare = (a, b) => (a === b ? 0 : a < b ? 1 : -1); // the largest first; infinities are alike
    const update = () => {
      const text = by("text").value.trim().toLowerCase();
      const wanted = by("class") ? by("class").value : "";
      const key = by("sort").value;
      let shown = 0;
      items.forEach((item, k) => {
        item.hidden = !words[k].includes(text) || (wanted !== "" && item.dataset.predicted !== wanted);
        shown += !item.hidden;
      });
      const order = [...items];
      if (key !== "order") order.sort((a, b) => compare(rank(a, key), rank(b, key)) || a.dataset.index - b.dataset.index);
      list.append(...order);
      by("count").value = shown === items.length ? `${items.length} samples` : `${shown} of ${items.length} samples`;
    };
    if (by("sort")) {
      for (const kind of ["input", "change"]) tools.addEventListener(kind, (event) => {
        if (["text", "class", "sort"].includes(event.target.name)) update();
      });
      update();
    }
  };
  window.onnxLrpPage = start; // for a page whose samples come later
  if (document.getElementById("tools")) start();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.where:not([open])")];
    for (const e of opened) e.open = true;
  });
  addEventListener("afterprint", () => { for (const e of opened) e.open = false; });
})();
