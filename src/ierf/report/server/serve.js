const $ = (selector) => document.querySelector(selector);

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const { data = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const address = (job, name) => `/api/jobs/${job}/files/${encodeURIComponent(name)}`;

/** What the server answers, as data; its refusals are errors that have its words. */
async function ask(path, options = {}) {
  const response = await fetch(path, options);
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  const error = new Error(said.error ?? `the server answers ${response.status}`);
  throw Object.assign(error, { wait: Number(response.headers.get("retry-after")) });
}

/** The line of a panel that says how its job goes, with a button that cancels it. One job at a time. */
class Task {
  constructor(panel) {
    this.said = make("span", { className: "said", role: "status" });
    this.bar = make("progress", { max: 1, ariaLabel: "Progress" });
    this.button = make("button", { type: "button", textContent: "Cancel", onclick: () => this.cancel() });
    this.line = make("div", { className: "task", hidden: true }, this.bar, this.said, this.button);
    panel.insertBefore(this.line, panel.querySelector(".result"));
    this.turn = 0;
    this.job = null;
  }

  /** Stop what runs. */
  cancel() {
    this.turn += 1;
    if (this.job) fetch(`/api/jobs/${this.job}`, { method: "DELETE", keepalive: true });
    this.job = null;
    this.line.hidden = true;
  }

  /** Do `what(step)`, which calls `step(words, share)` and stops where that is false; undefined if it was stopped. */
  async run(what) {
    this.cancel();
    const turn = this.turn;
    const step = (words, share) => turn === this.turn && this.show(words, share);
    step("waiting");
    try {
      const found = await what(step);
      if (turn !== this.turn) return undefined;
      this.line.hidden = true;
      return found;
    } catch (error) {
      if (turn === this.turn) this.fail(error.message);
      return undefined;
    }
  }

  /** The job that answers `asked`, finished. */
  compute(asked) {
    return this.run(async (step) => {
      let job = await this.submit(asked, step);
      while (job && ["queued", "running"].includes(job.state)) {
        const words = job.state === "queued" ? `${job.ahead} before this one` : `${job.stage}, ${job.seconds.toFixed(0)} s`;
        if (!step(words, job.total === null ? undefined : job.done / job.total)) return undefined;
        await pause(200);
        job = await ask(`/api/jobs/${job.id}`);
      }
      this.job = null;
      if (job?.state === "failed") throw new Error(job.error);
      if (job?.state === "cancelled") throw new Error("cancelled");
      return job;
    });
  }

  async submit(asked, step) {
    const body = JSON.stringify(asked);
    const options = { method: "POST", body, headers: { "content-type": "application/json" } };
    while (step("waiting for a place in the queue")) {
      try {
        const job = await ask("/api/jobs", options);
        if (["queued", "running"].includes(job.state)) this.job = job.id;
        return job;
      } catch (error) {
        if (!error.wait) throw error;
        await pause(1000 * error.wait);
      }
    }
    return undefined;
  }

  show(words, share) {
    this.line.hidden = false;
    this.line.classList.remove("failed");
    this.bar.hidden = this.button.hidden = false;
    this.said.textContent = words;
    if (share === undefined) this.bar.removeAttribute("value");
    else this.bar.value = share;
    return true;
  }

  fail(words) {
    this.show(words);
    this.line.classList.add("failed");
    this.bar.hidden = this.button.hidden = true;
  }
}

const tasks = Object.fromEntries(
  [...document.querySelectorAll(".task-of")].map((panel) => [panel.id.replace("panel-", ""), new Task(panel)]),
);
const state = { photo: null, classes: [], row: 0, column: 0, graph: null };
const model = await ask("/api/model");
const layer = () => model.layers.find((one) => one.name === $("#layer").value);
const result = (name) => $(`#panel-${name} .result`);

function bar(share, className = "bar") {
  const inner = make("i");
  inner.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  const outer = make("span", { className }, inner);
  outer.setAttribute("aria-hidden", "true");
  return outer;
}

function prediction({ label, probability }) {
  const number = make("span", { className: "number" }, percent(probability));
  return make("li", {}, make("span", { className: "label" }, label), bar(probability), number);
}

function figure(job, drawn) {
  const image = make("img", { src: address(job, drawn.picture), alt: drawn.alt });
  const numbers = make("a", { href: address(job, drawn.numbers), download: drawn.numbers }, "numbers");
  const words = [make("strong", {}, drawn.title), make("br"), `${drawn.caption} `, numbers];
  return make("figure", {}, image, make("figcaption", {}, ...words));
}

/** Figures that are shown when asked for, layer by layer. */
function details(title, job, features) {
  const layers = [...new Set(features.map((one) => one.name))];
  const rows = layers.flatMap((name) => [
    make("h3", {}, make("code", {}, name)),
    make("div", { className: "row" }, ...features.filter((one) => one.name === name).map((one) => figure(job, one))),
  ]);
  return make("details", {}, make("summary", {}, title), ...rows);
}

async function open(file) {
  const sent = await tasks.photo.run((step) => {
    step(`sending ${file.name}`);
    if (file.size > model.upload) throw new Error("this file is larger than the server takes; send a smaller one");
    return ask("/api/photos", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
  });
  if (!sent) return;
  Object.values(tasks).forEach((task) => task.cancel());
  Object.assign(state, { photo: sent.photo, classes: [], graph: null });
  for (const name of ["maps", "ierf", "graph", "intervention"]) result(name).replaceChildren();
  $("#panel-ierf").hidden = $("#panel-intervention").hidden = true;
  Object.assign($("#photo"), { src: `/api/photos/${sent.photo}`, alt: `The photograph ${file.name}` });
  $("#work").hidden = false;
  centre();
  await showMaps();
}

async function showMaps() {
  const asked = { kind: "maps", photo: state.photo, method: $("#method").value };
  if (state.classes.length) asked.classes = state.classes;
  if ($("#resolution").value) asked.resolution = $("#resolution").value;
  const job = await tasks.maps.compute(asked);
  if (!job) return;
  const { top, classes, features, said } = job.result;
  $("#top").replaceChildren(...top.map(prediction));
  const parts = classes.flatMap((one) => [
    make("h3", {}, `${one.label} `, make("span", { className: "number" }, percent(one.probability))),
    make("div", { className: "row" }, ...one.maps.map((drawn) => figure(job.id, drawn))),
  ]);
  if (features.length) parts.push(details(`The features behind ${classes[0].label}`, job.id, features));
  result("maps").replaceChildren(...parts, ...said.map((text) => make("p", { className: "note" }, text)));
  choose(state.classes.length ? state.classes : classes.map((one) => one.index));
}

async function showIerf() {
  $("#panel-ierf").hidden = false;
  const position = [state.row, state.column];
  const asked = { kind: "ierf", photo: state.photo, layer: layer().name, position };
  if (state.classes.length) asked.target = state.classes[0];
  if (model.methods.find((one) => one.name === $("#method").value).rules) asked.method = $("#method").value;
  const job = await tasks.ierf.compute(asked);
  if (!job) return;
  const target = make("p", { className: "note" }, `Measured for ${job.result.target.label}.`);
  result("ierf").replaceChildren(make("div", { className: "one" }, figure(job.id, job.result)), target);
}

async function showGraph() {
  const layers = [...document.querySelectorAll("#layers input:checked")].map((box) => box.value);
  const asked = { kind: "graph", photo: state.photo, budget: Number($("#budget").value) };
  if (layers.length) asked.layers = layers;
  if (state.classes.length) asked.classes = state.classes.slice(0, 2);
  const job = await tasks.graph.compute(asked);
  if (!job) return;
  const page = address(job.id, job.result.page);
  const frame = make("iframe", { title: "The concept graph", src: page });
  frame.sandbox.add("allow-scripts", "allow-downloads");
  const links = make(
    "p",
    { className: "note" },
    make("a", { href: page, target: "_blank", rel: "noopener" }, "Open the graph alone"),
    " · ",
    make("a", { href: address(job.id, job.result.data), download: "graph.json" }, "as data"),
  );
  result("graph").replaceChildren(frame, links);
  state.graph = job;
  listConcepts();
}

function listConcepts() {
  const { rows } = state.graph.result;
  const parts = rows.flatMap(({ layer: name, concepts }) => [
    make("h3", {}, make("code", {}, name)),
    make("div", { className: "concepts" }, ...concepts.map(concept)),
  ]);
  $("#concepts").replaceChildren(...parts);
  result("intervention").replaceChildren();
  $("#panel-intervention").hidden = false;
}

function concept(node) {
  const pictures = ["elsewhere", "here"]
    .filter((what) => node[what])
    .map((what) => make("img", { src: address(state.graph.id, node[what]), alt: `${node.id}, ${what}`, loading: "lazy" }));
  const worth = node.importance.map((value, i) => `${signed(value)} ${state.graph.result.classes[i].label}`).join(", ");
  const box = make("input", { type: "checkbox", checked: true, value: node.id, onchange: intervene });
  box.setAttribute("role", "switch");
  return make(
    "label",
    { className: "concept" },
    make("span", { className: "pair" }, ...pictures),
    box,
    make("code", {}, ` ${node.id}`),
    make("span", { className: "soft" }, worth),
  );
}

async function intervene() {
  const off = [...document.querySelectorAll("#concepts input:not(:checked)")].map((box) => box.value);
  const classes = state.graph.result.classes.map((one) => one.index);
  const asked = { kind: "intervention", photo: state.photo, delete: off, classes, graph: state.graph.id };
  const job = await tasks.intervention.compute(asked);
  if (!job) return;
  const head = ["Class", "Logit before", "after", "change", "Probability before", "after", "before and after"];
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...job.result.classes.map(outcome)),
  );
  const claims = job.result.claims.map(({ label, claimed, lost }) =>
    make("p", {}, `${label}: the graph claims ${signed(claimed)}, the logit lost ${signed(lost)}.`),
  );
  result("intervention").replaceChildren(make("div", { className: "scroll" }, table), ...claims);
}

function outcome({ label, logits: [before, after], probabilities }) {
  const numbers = [before.toFixed(2), after.toFixed(2), signed(after - before), ...probabilities.map(percent)];
  const bars = make("td", { className: "bars-of" }, bar(probabilities[0], "bar loss"), bar(probabilities[1]));
  return make("tr", {}, make("td", {}, label), ...numbers.map((number) => make("td", {}, number)), bars);
}

/** Choose classes by their indices. */
function choose(indices) {
  state.classes = [...new Set(indices)];
  const chip = (index) => {
    const remove = () => choose(state.classes.filter((other) => other !== index));
    const name = model.labels[index];
    return make("button", { type: "button", textContent: name, title: `Remove ${name}`, onclick: remove });
  };
  $("#classes").replaceChildren(...state.classes.map(chip));
}

function addClass() {
  const field = $("#class");
  const text = field.value.trim().toLowerCase();
  const exact = model.labels.findIndex((label) => label.toLowerCase() === text);
  const index = exact >= 0 ? exact : /^\d+$/.test(text) ? Number(text) : -1;
  field.setCustomValidity(index >= 0 && index < model.labels.length ? "" : "The model has no class of this name");
  if (!field.reportValidity()) return;
  field.value = "";
  choose([...state.classes, index]);
}

/** Mark the position that is chosen. */
function mark(row, column) {
  const { name, rows, columns } = layer();
  state.row = Math.max(0, Math.min(rows - 1, row));
  state.column = Math.max(0, Math.min(columns - 1, column));
  Object.assign($("#cell").style, {
    left: `${(100 * state.column) / columns}%`,
    top: `${(100 * state.row) / rows}%`,
    width: `${100 / columns}%`,
    height: `${100 / rows}%`,
  });
  $("#where").textContent = `${name}, ${rows} × ${columns}: row ${state.row}, column ${state.column}.`;
}

function centre() {
  mark(Math.floor(layer().rows / 2), Math.floor(layer().columns / 2));
}

function options(select, entries, chosen) {
  $(select).replaceChildren(...entries.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}

options("#method", model.methods.map(({ name, title }) => [name, title]), model.usual);
options("#resolution", [
  ["", "low, high and input, as far as the method has them"],
  ...model.resolutions.map((name) => [name, name]),
  ...model.layers.map(({ name }) => [name, `layer ${name}`]),
]);
options("#layer", model.layers.map(({ name, rows, columns }) => [name, `${name} (${rows} × ${columns})`]), model.layers.at(-1).name);
$("#labels").append(...model.labels.map((label) => make("option", { value: label })));
const boxes = (model.bank ?? []).map((name, i, all) =>
  make("label", {}, make("input", { type: "checkbox", value: name, checked: i >= all.length - 3 }), ` ${name}`),
);
$("#layers").append(...boxes);

$("#file").addEventListener("change", (event) => event.target.files.length && open(event.target.files[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("#drop").classList.add("over");
});
addEventListener("dragleave", () => $("#drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("#drop").classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => event.clipboardData.files.length && open(event.clipboardData.files[0]));
addEventListener("pagehide", () => Object.values(tasks).forEach((task) => task.cancel()));

$("#class").addEventListener("keydown", (event) => event.key === "Enter" && addClass());
$("#class").addEventListener("input", (event) => event.target.setCustomValidity(""));
$("#layer").addEventListener("change", centre);
$("#show-maps").addEventListener("click", showMaps);
$("#show-graph").addEventListener("click", showGraph);
$("#all-on").addEventListener("click", () => {
  document.querySelectorAll("#concepts input").forEach((box) => { box.checked = true; });
  intervene();
});
$("#stage").addEventListener("click", (event) => {
  const box = $("#photo").getBoundingClientRect();
  const { rows, columns } = layer();
  mark(
    Math.floor((rows * (event.clientY - box.top)) / box.height),
    Math.floor((columns * (event.clientX - box.left)) / box.width),
  );
  showIerf();
});
$("#stage").addEventListener("keydown", (event) => {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (event.key === "Enter") showIerf();
  else if (moves[event.key]) mark(state.row + moves[event.key][0], state.column + moves[event.key][1]);
  else return;
  event.preventDefault();
});
