// Asks this machine's server, and shows what it answers. Whatever comes from a model, a text or a file is set as text; the only HTML
// that is taken is the report's, in which everything is escaped.
(() => {
  const get = (id) => document.getElementById(id);
  const form = get("ask");
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  // the key: out of the address, into storage that belongs to this address and port alone
  const meta = document.querySelector('meta[name="onnx-lrp-key"]');
  if (meta.content) sessionStorage.setItem("onnx-lrp-key", meta.content);
  meta.remove();
  history.replaceState(null, "", "/");
  const key = sessionStorage.getItem("onnx-lrp-key") || "";

  const say = (text) => { get("error").textContent = text; get("error").hidden = !text; };
  const ask = async (path, options = {}) => {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: { ...options.headers, "X-Onnx-Lrp-Key": key } });
    } catch {
      throw new Error("The server has ended, or is out of reach: start onnx-lrp view again, and open the address that it prints.");
    }
    if (answer.ok) return answer;
    const body = await answer.text();
    let said = body;
    try { said = JSON.parse(body).error; } catch { /* the guard speaks in plain text */ }
    throw new Error(said || answer.statusText);
  };
  const post = (path, value) => ask(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value),
  });
  const option = (value, text = value) => Object.assign(document.createElement("option"), { value, textContent: text });
  const words = (name) => name.replaceAll("_", " ");

  let model = null;
  let file = null; // what was dropped, as the server calls it
  let running = null; // the job that is worked on

  // ---- what there is to choose

  const fill = (id, entries) => get(id).append(...entries.map(([value, text]) => option(value, text)));
  const group = (label, entries, kind) => {
    const made = Object.assign(document.createElement("optgroup"), { label });
    made.append(...entries.map((name) => option(`${kind}:${name}`, name)));
    return made;
  };
  const describe = () => {
    get("name").textContent = model.name;
    document.title = `${model.name} – onnx-lrp`;
    get("typed").hidden = !model.texts;
    get("text").value = model.sentence;
    get("kinds").textContent = model.suffixes.join(", ");
    get("file").accept = model.suffixes.join(",");
    fill("scheme", Object.entries(model.schemes));
    fill("method", Object.keys(model.methods).map((name) => [name, words(name)]));
    fill("beside", Object.keys(model.methods).map((name) => [name, words(name)]));
    fill("gates", model.gates.map((name) => [name, name]));
    get("rule").append(group("rules", Object.keys(model.rules), "rule"), group("composites", model.composites, "composite"));
    fill("output", [["", "the first that depends on the inputs"], ...model.outputs.map((name) => [name, name])]);
    get("of-output").hidden = model.outputs.length < 2;
    fill("tensors", model.tensors.map((name) => [name, name]));
    fill("targets", [...model.classes.map((name, k) => [String(k), name]), ["all", "every class"]]);
    get("about-how").textContent = model.texts
      ? "Type a text, or choose a file with ids, and press Explain."
      : "Choose a file with the model's inputs, and press Explain.";
    const facts = [["inputs", model.inputs], ["outputs", model.outputs], ["explained", model.explained ? [model.explained] : []]];
    for (const [name, values] of facts.filter(([, values]) => values.length)) {
      const row = document.createElement("div");
      row.append(
        Object.assign(document.createElement("dt"), { textContent: name }),
        Object.assign(document.createElement("dd"), { textContent: values.join(", ") }),
      );
      get("about").querySelector("dl").append(row);
    }
    get("about").hidden = false;
    if (model.problem) say(`${model.problem}\n\nChoose one of the tensors under “Attribute to”.`);
    form.hidden = false;
    fit();
  };
  // fields that mean something for the methods chosen
  const fit = () => {
    const chosen = [get("method").value, get("beside").value].filter(Boolean);
    for (const field of form.querySelectorAll("[data-option]")) {
      field.hidden = !chosen.some((name) => model.methods[name].includes(field.dataset.option));
    }
    for (const field of form.querySelectorAll("[data-for]")) field.hidden = !chosen.includes(field.dataset.for);
    const [kind, rule] = get("rule").value.split(":");
    for (const field of form.querySelectorAll("[data-rule]")) {
      field.hidden ||= kind !== "rule" || !model.rules[rule].includes(field.dataset.rule);
    }
    for (const id of ["epsilon", "bias_factor"]) get(id).disabled = kind === "composite"; // it has its own
    get("show").disabled = Boolean(file);
    for (const other of get("beside").options) other.disabled = other.value !== "" && other.value === get("method").value;
    if (get("beside").value === get("method").value) get("beside").value = "";
    get("columns").hidden = !file || !model.tables.some((suffix) => file.name.toLowerCase().endsWith(suffix));
    get("given").hidden = !file;
    get("drop").hidden = Boolean(file);
    get("text").disabled = Boolean(file);
  };

  // ---- the input

  const take = async (chosen) => {
    say("");
    if (chosen.size > model.largest) {
      return say(`${chosen.name}: larger than ${model.largest / 2 ** 20} MiB; onnx-lrp explain takes larger inputs`);
    }
    try {
      const answer = await ask(`/api/file?name=${encodeURIComponent(chosen.name)}`, {
        method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: chosen,
      });
      file = await answer.json();
    } catch (error) {
      return say(error.message);
    }
    get("given").querySelector("bdi").textContent = file.name;
    get("known").replaceChildren();
    if (/\.csv$/i.test(chosen.name)) { // its first line, as a proposal
      const [first] = (await chosen.slice(0, 10000).text()).split(/\r?\n/, 1);
      get("known").append(...first.split(",").map((name) => option(name.trim().replace(/^"|"$/g, ""))));
    }
    fit();
    get("forget").focus();
  };
  get("file").addEventListener("change", (event) => {
    if (event.target.files.length) take(event.target.files[0]);
    event.target.value = "";
  });
  get("forget").addEventListener("click", () => { file = null; fit(); get(model.texts ? "text" : "file").focus(); });
  let over = 0;
  const dragged = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => { if (dragged(event)) { over += 1; document.body.classList.add("over"); } });
  addEventListener("dragleave", (event) => { if (dragged(event) && (over -= 1) <= 0) document.body.classList.remove("over"); });
  addEventListener("dragover", (event) => { if (dragged(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    over = 0;
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length && model) take(event.dataTransfer.files[0]);
  });

  // ---- asking, and waiting

  const question = () => {
    const value = (id) => get(id).value.trim();
    const number = (id) => (value(id) === "" ? null : Number(value(id)));
    const plain = ["target", "method", "beside", "rule", "gates", "at", "output", "by", "show"];
    const asked = Object.fromEntries(plain.map((id) => [id, value(id)]));
    if (file) asked.file = file.id;
    else asked.texts = get("text").value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!get("columns").hidden) for (const id of ["time", "id", "features"]) asked[id] = value(id);
    const numbers = ["epsilon", "bias_factor", "gamma", "alpha", "low", "high", "steps", "baseline"];
    return { ...asked, ...Object.fromEntries(numbers.map((id) => [id, number(id)])) };
  };
  let held = false; // the focus was on the button, which loses it while there is work
  const busy = (job) => {
    if (!running) held = document.activeElement === get("go");
    running = job;
    get("go").disabled = Boolean(job);
    get("cancel").hidden = !(job && job.id);
    get("state").hidden = !job;
    get("shown").classList.toggle("old", Boolean(job));
    get("main").setAttribute("aria-busy", String(Boolean(job)));
  };
  const idle = () => {
    const back = document.activeElement === get("cancel") || (held && document.activeElement === document.body);
    busy(null);
    if (back) get("go").focus({ preventScroll: true });
  };
  const tell = (job) => {
    const what = job.state === "stopping" ? "stopping, at the next chance" : job.stage || "waiting";
    const long = job.seconds >= 3 ? `, ${Math.round(job.seconds)} s` : "";
    const said = `${what}${job.share === null ? "" : ` ${Math.round(100 * job.share)} %`} …`;
    if (get("said").textContent !== said) get("said").textContent = said;
    get("progress").setAttribute("aria-valuetext", said + long);
    if (job.share === null) get("progress").removeAttribute("value");
    else get("progress").value = job.share;
    get("cancel").disabled = job.state === "stopping";
  };
  const follow = async (first) => {
    let job = first;
    busy(job);
    try {
      while (["waiting", "running", "stopping"].includes(job.state)) {
        tell(job);
        await wait(job.seconds < 2 ? 100 : 400);
        job = await (await ask(`/api/jobs/${job.id}`)).json();
      }
      if (job.state === "failed") say(job.error);
      if (job.state === "done") await show(job);
    } catch (error) {
      say(error.message);
    }
    idle();
    if (job.state === "done" && matchMedia("(max-width: 60rem)").matches) get("main").scrollIntoView();
  };
  const show = async (job) => {
    const html = await (await ask(`/api/jobs/${job.id}/shown`)).text();
    get("shown").innerHTML = html;
    window.onnxLrpPage();
    const many = job.samples === 1 ? "1 sample" : `${job.samples} samples`;
    get("done-said").textContent = `${many}, ${job.seconds < 1 ? `${Math.round(1000 * job.seconds)} ms` : `${job.seconds.toFixed(1)} s`}`;
    const save = (label, name, path) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.addEventListener("click", () => download(name, path()));
      return button;
    };
    const stem = model.name.replace(/\.onnx$/i, "").replace(/[^\w.-]+/g, "_") || "explanation";
    const one = job.methods.length === 1;
    get("saves").replaceChildren(
      save("Save HTML", `${stem}.html`, () => `/api/jobs/${job.id}/html?scheme=${encodeURIComponent(get("scheme").value)}`),
      ...job.methods.map((name) => save(
        one ? "Save JSON" : `Save JSON, ${words(name)}`,
        one ? `${stem}.json` : `${stem}.${name}.json`,
        () => `/api/jobs/${job.id}/json?method=${encodeURIComponent(name)}`,
      )),
    );
    get("about").hidden = true;
    get("done").hidden = false;
  };
  const download = async (name, path) => {
    say("");
    try {
      const blob = await (await ask(path)).blob();
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch (error) {
      say(error.message);
    }
  };

  form.addEventListener("change", fit);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    say("");
    busy({}); // at once: nobody asks twice
    try {
      await follow(await (await post("/api/jobs", question())).json());
    } catch (error) {
      idle();
      say(error.message);
    }
  });
  get("cancel").addEventListener("click", async () => {
    try {
      if (running) tell(await (await post(`/api/jobs/${running.id}/cancel`, {})).json());
    } catch (error) {
      say(error.message);
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  for (const name of ["scheme", "theme"]) {
    get(name).addEventListener("change", (event) => { document.body.dataset[name] = event.target.value; });
  }

  (async () => {
    try {
      model = await (await ask("/api/model")).json();
      busy({}); // a new question would take away what is being fetched
      describe();
      const last = await (await ask("/api/jobs")).json(); // the page was loaded again
      if (last && last.state === "done") await show(last);
      else if (last && ["waiting", "running", "stopping"].includes(last.state)) await follow(last);
    } catch (error) {
      say(error.message);
    }
    idle();
  })();
})();
