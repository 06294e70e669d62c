"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const main = document.getElementById("main");
  const nav = document.getElementById("nav");

  // Elements and texts; nothing of the data is ever read as HTML.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) node.append(child);
    return node;
  }
  const number = (value, digits = 4) =>
    value === null || value === undefined ? "not defined" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
      ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
  const count = (value) => value.toLocaleString("en");
  const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

  function section(id, title, lead, ...children) {
    nav.append(el("a", { href: `#${id}` }, title));
    const node = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), lead && el("p", { class: "lead" }, lead), ...children);
    main.append(node);
    return node;
  }

  // The head and what can be said at a glance.
  const inputs = facts.task.inputs.join(" + ");
  document.title = `${facts.name}: sonde report`;
  document.getElementById("task").textContent = `${inputs} to ${facts.task.target}`;
  document.getElementById("name").textContent = facts.name;
  document.getElementById("sub").textContent = [
    ...Object.entries(facts.records).map(([split, records]) => `${count(records)} ${split}`),
    `${count(facts.parameters)} parameters`, `seed ${facts.seed}`,
  ].join(" \u00b7 ");
  const split = facts.scores.test ? "test" : Object.keys(facts.scores)[0];
  const scores = split ? facts.scores[split] : {};
  const [monitor] = facts.monitor || Object.keys(scores);
  const better = facts.monitor ? facts.monitor[1] : "max";
  const score = scores[monitor];
  const training = facts.findings.find((one) => one.check === "training");
  const troubles = facts.findings.filter((one) => one.verdict !== "pass");
  const worstSlice = (facts.slices || []).find((one) => one.worse);

  function glance() {
    const cards = [];
    if (score) {
      const beats = score.baseline === null || score.baseline === undefined ? null
        : better === "max" ? score.low > score.baseline : score.high < score.baseline;
      cards.push(card("How good is it?", el("p", { class: "big" }, number(score.value)),
        `${monitor.replaceAll("_", " ")} on ${split}` + (score.baseline === null || score.baseline === undefined ? ""
          : `; ${facts.baseline || "baseline"} ${number(score.baseline, 3)}${beats ? "" : ", which is inside the interval"}`)));
      cards.push(card("How sure is that?", el("p", { class: "big" }, score.low === null ? "unknown" : `${number(score.low, 3)} to ${number(score.high, 3)}`),
        `95 % interval from ${count(score.units || score.count)} ${score.unit === "examples" ? "records" : score.unit}` + (score.chose_checkpoint ? "; the split chose the weights: optimistic" : "")));
    }
    cards.push(card("Where does it fail?", el("p", { class: "words" }, worstSlice ? worstSlice.name : "No slice stands out"),
      worstSlice ? `mean cost ${number(worstSlice.cost, 3)} on ${count(worstSlice.count)} records, ${percent(worstSlice.share)} of all cost`
        : facts.slices ? "no group of records is worse than the rest by more than chance" : "errors are not told apart by record here"));
    const gap = scores.rms_calibration_error;
    if (gap && gap.value !== null) {
      const fine = gap.low <= 0.02 || gap.value < 0.05;
      cards.push(card("Can its confidence be trusted?", el("p", { class: `words ${fine ? "good" : "warn"}` }, fine ? "Yes, within what can be seen" : "Not as it stands"),
        `confidence is off by ${number(gap.value, 2)} (root mean square) [${number(gap.low, 2)}, ${number(gap.high, 2)}]` + (gap.before === null || gap.before === undefined ? "" : `; ${number(gap.before, 2)} before calibration`)));
    }
    const failed = troubles.find((one) => one.verdict === "fail") || (training && training.verdict !== "pass" ? training : null) || troubles[0];
    cards.push(card("What next?", el("p", { class: `words ${failed ? (failed.verdict === "fail" ? "bad" : "warn") : "good"}` }, failed ? failed.check : "Nothing is in the way"),
      failed ? failed.fix : "checks and curves are clean: try it on new records"));
    section("glance", "At a glance", null, el("div", { class: "glance" }, cards));
  }
  const card = (question, answer, words) => el("div", { class: "card" }, el("p", { class: "q" }, question), answer, el("p", {}, words));

  // A table whose columns sort.
  function sortable(columns, rows) {
    const body = el("tbody");
    const heads = columns.map((column, place) => el("th", { class: column.n ? "n" : null, scope: "col", "aria-sort": "none" },
      el("button", { type: "button", onclick: () => sort(place) }, column.title)));
    function fill(list) {
      body.replaceChildren(...list.map((row) => el("tr", {}, columns.map((column) => el("td", { class: column.class || (column.n ? "n" : null) }, column.show(row))))));
    }
    function sort(place) {
      const up = heads[place].getAttribute("aria-sort") !== "ascending";
      heads.forEach((head, other) => head.setAttribute("aria-sort", other === place ? (up ? "ascending" : "descending") : "none"));
      const key = columns[place].key;
      fill([...rows].sort((a, b) => (up ? 1 : -1) * d3.ascending(key(a), key(b))));
    }
    fill(rows);
    return { node: el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), body)), fill };
  }

  function rangeOf(row, low, high) {
    const svg = d3.create("svg").attr("class", "range").attr("viewBox", "0 0 150 14").attr("aria-hidden", "true");
    if (row.low === null || row.value === null) return svg.node();
    const x = d3.scaleLinear([low, high === low ? low + 1 : high], [4, 146]);
    svg.append("rect").attr("x", x(row.low)).attr("width", Math.max(1, x(row.high) - x(row.low))).attr("y", 4).attr("height", 6).attr("rx", 3);
    if (row.baseline !== null && row.baseline !== undefined) svg.append("line").attr("x1", x(row.baseline)).attr("x2", x(row.baseline)).attr("y1", 0).attr("y2", 14);
    svg.append("circle").attr("cx", x(row.value)).attr("cy", 7).attr("r", 4);
    return svg.node();
  }

  function scoreTable() {
    const splits = Object.entries(facts.scores).sort(([name]) => (name === split ? -1 : 1));
    const rows = splits.flatMap(([name, found]) => Object.entries(found).map(([metric, one]) => ({ split: name, metric, ...one })));
    if (!rows.length) return;
    const span = (row) => {
      const all = [row.low, row.high, row.value, row.baseline].filter((value) => value !== null && value !== undefined);
      return all.every((value) => value >= 0 && value <= 1) ? [0, 1] : [Math.min(...all), Math.max(...all)];
    };
    const { node, fill } = sortable([
      { title: "Split", key: (row) => row.split, show: (row) => row.split },
      { title: "Score", key: (row) => row.metric, show: (row) => row.metric.replaceAll("_", " ") },
      { title: "Value", n: true, key: (row) => row.value, show: (row) => number(row.value) },
      { title: "95 % interval", n: true, key: (row) => row.low, show: (row) => row.low === null ? "" : `${number(row.low)} to ${number(row.high)}` },
      { title: "Range", key: (row) => row.value, show: (row) => rangeOf(row, ...span(row)) },
      { title: facts.baseline || "Baseline", n: true, key: (row) => row.baseline, show: (row) => row.baseline === null || row.baseline === undefined ? "" : number(row.baseline) },
    ], rows);
    // Scores of single classes or fields ("recall/cat") are many: they come when asked for.
    const detailed = rows.some((row) => row.metric.includes("/")) && rows.some((row) => !row.metric.includes("/"));
    const refill = () => {
      const word = wanted.value.toLowerCase().replaceAll(" ", "_");
      const shown = rows.filter((row) => word || !detailed || each.checked || !row.metric.includes("/"));
      fill(shown.filter((row) => `${row.split} ${row.metric}`.toLowerCase().replaceAll(" ", "_").includes(word)));
    };
    const wanted = el("input", { type: "search", id: "filter", placeholder: "recall, test ...", oninput: refill });
    const each = el("input", { type: "checkbox", id: "each", onchange: refill });
    refill();
    section("scores", "Scores", "Intervals say what the score could be on very many records of the same kind, for this trained network. The bar is the interval, the dot the score, the line the baseline.",
      el("div", { class: "row" }, el("label", { for: "filter" }, "Show only"), wanted,
        ...(detailed ? [each, el("label", { for: "each" }, "with each class or field")] : [])), node);
  }

  // Pictures.
  const style = { background: "none", fontFamily: "inherit", fontSize: "13px", color: "currentColor" };
  const colours = ["#1c93bd", "#e0566a", "#2a9d63", "#b8860b", "#7a5ea8", "#5b6670", "#e07a3f", "#3b6fd4", "#8c564b", "#00a6a6"];
  function figure(draw, label) {
    const holder = el("figure", { role: "img", "aria-label": label });
    let width = 0;
    const again = () => {
      const now = Math.min(760, Math.max(280, holder.clientWidth || 470));
      if (Math.abs(now - width) < 8) return;
      width = now;
      holder.replaceChildren(draw(width));
    };
    // Drawn in the next frame: a picture that changes its size while sizes are told would be told of again.
    new ResizeObserver(() => requestAnimationFrame(again)).observe(holder);
    return holder;
  }
  function panel(title, note, draw) {
    return el("div", { class: "panel" }, el("h3", {}, title), el("p", {}, note), figure(draw, `${title}. ${note}`));
  }
  function lines(spec) {
    // A flat line has no range of its own.
    const [first] = spec.rows;
    const flat = first && !spec.log && spec.rows.every((row) => row.y === first.y);
    const domainY = spec.domainY || (flat ? [Math.min(0, first.y), Math.max(1, first.y)] : undefined);
    return (width) => Plot.plot({
      width, height: Math.round(width * 0.62), style, marginLeft: 52, marginBottom: 40, grid: true,
      x: { label: spec.x, domain: spec.domainX }, y: { label: spec.y, domain: domainY, type: spec.log ? "log" : "linear" },
      color: { range: colours, legend: new Set(spec.rows.map((row) => row.series)).size > 1 },
      marks: [
        spec.diagonal ? Plot.line([[0, 0], [1, 1]], { stroke: "currentColor", strokeOpacity: 0.45, strokeDasharray: "4 4" }) : null,
        Plot.lineY(spec.rows, { x: "x", y: "y", stroke: "series", strokeWidth: 2 }),
        spec.rows.length <= 60 ? Plot.dot(spec.rows, { x: "x", y: "y", fill: "series", r: 3 }) : null,
        Plot.tip(spec.rows, Plot.pointer({ x: "x", y: "y", stroke: "series", fill: "var(--card)" })),
      ],
    });
  }
  const drawn = {
    grouped: (spec) => (width) => Plot.plot({
      width, height: Math.round(width * 0.62), style, marginLeft: 60, marginBottom: 44, x: { axis: null }, fx: { label: spec.x, domain: [...new Set(spec.rows.map((row) => row.x))] }, y: { label: spec.y, grid: true },
      color: { range: colours, legend: true },
      marks: [Plot.barY(spec.rows, { fx: "x", x: "series", y: "value", fill: "series", tip: true }), Plot.ruleY([0])],
    }),
    lines: (spec) => lines({ ...spec, domainX: [0, 1], domainY: [0, 1] }),
    heatmap: (spec) => (width) => {
      const longest = Math.max(...spec.domain.map((name) => name.length));
      const side = Math.max(60, Math.min(160, 8 + 7.2 * Math.min(longest, 20)));
      const cut = (name) => (name.length > 20 ? `${name.slice(0, 19)}\u2026` : name);
      const plot = Plot.plot({
        width, height: Math.min(760, side + 34 + Math.max(30, (width - side) / spec.domain.length) * spec.domain.length * 0.8), style,
        marginLeft: side, marginBottom: spec.domain.length > 6 ? side : 40, padding: 0.04,
        x: { domain: spec.domain, label: spec.x, tickRotate: spec.domain.length > 6 ? -60 : 0, tickFormat: cut },
        y: { domain: spec.domain, label: spec.y, tickFormat: cut },
        color: { type: "linear", range: ["rgba(28,147,189,0.06)", "#1c7fa6"], domain: [0, 1], interpolate: "rgb" },
        marks: [
          Plot.cell(spec.rows, { x: "x", y: "y", fill: "value", title: (row) => `${row.y} answered as ${row.x}: ${count(row.count)} (${percent(row.value)})`, tip: true }),
          spec.domain.length <= 14 ? Plot.text(spec.rows.filter((row) => row.count), { x: "x", y: "y", text: (row) => count(row.count), fill: (row) => (row.value > 0.55 ? "white" : "currentColor") }) : null,
        ],
      });
      if (facts.cells) d3.select(plot).selectAll("g[aria-label=cell] rect").style("cursor", "pointer").on("click", (event, place) => {
        const row = spec.rows[place];
        if (row && row.x !== row.y) chooseCell(`${row.y} > ${row.x}`);
      });
      return plot;
    },
    points: (spec) => (width) => {
      const all = spec.rows.flatMap((row) => [row.x, row.y]);
      const ends = [Math.min(...all), Math.max(...all)];
      return Plot.plot({
        width, height: Math.round(width * 0.75), style, marginLeft: 60, marginBottom: 40, grid: true, x: { label: spec.x, domain: spec.diagonal ? ends : undefined }, y: { label: spec.y, domain: spec.diagonal ? ends : undefined },
        marks: [spec.diagonal ? Plot.line([[ends[0], ends[0]], [ends[1], ends[1]]], { stroke: "currentColor", strokeOpacity: 0.45, strokeDasharray: "4 4" }) : null,
          Plot.dot(spec.rows, { x: "x", y: "y", r: 2.5, fill: colours[0], fillOpacity: 0.45, tip: true })],
      });
    },
    bars: (spec) => (width) => Plot.plot({
      width, height: Math.round(width * 0.5), style, marginLeft: 52, marginBottom: 40, x: { label: spec.x }, y: { label: spec.y, grid: true },
      marks: [Plot.rectY(spec.rows.map((row, place) => ({ ...row, x2: spec.rows[place + 1] ? spec.rows[place + 1].x : row.x + (place ? row.x - spec.rows[place - 1].x : 1) })), { x1: "x", x2: "x2", y: "value", fill: colours[0], insetLeft: 0.5, insetRight: 0.5, tip: true }), Plot.ruleY([0])],
    }),
  };

  // What the means to doubt the model are worth.
  const trust = facts.trust || {};
  const within = (share) => `${number(share.value, 3)} [${number(share.low, 3)}, ${number(share.high, 3)}] of ${count(share.total)}`;
  function table(heads, rows) {
    return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head, place) => el("th", { scope: "col", class: place ? "n" : null }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, place) => el(place ? "td" : "th", { class: place ? "n" : null, scope: place ? null : "row" }, cell)))))));
  }
  const box = (title, note, ...children) => el("div", { class: "panel" }, el("h3", {}, title), el("p", {}, note), ...children);
  function doubts() {
    const boxes = [];
    const changed = Object.entries(scores).filter(([name, one]) => !name.includes("/") && one.before !== null && one.before !== undefined && one.value !== null);
    if (changed.length) boxes.push(box("Before and after", `Calibration${trust.decision ? " and decision" : ""}, learned on the validation split, judged on ${split}.`,
      table(["Score", "Before", "After"], changed.map(([name, one]) => [name.replaceAll("_", " "), number(one.before, 3), number(one.value, 3)]))));
    if (trust.decision) boxes.push(box("Decision", "How answers are chosen, and what that did here.", el("p", { class: "said" }, trust.decision.replace(/^decision: /, ""))));
    if (trust.coverage) {
      const held = trust.coverage;
      boxes.push(box("Sets and intervals", `\u201csonde predict --coverage ${held.stated}\u201d adds what holds the truth in ${percent(held.stated)} of records like those of the validation split.`,
        table(["Records", "Held the truth", "Of"], [["all", held.share], ...Object.entries(held.groups)].map(([name, share]) => [name, `${number(share.value, 3)} [${number(share.low, 3)}, ${number(share.high, 3)}]`, count(share.total)])),
        el("p", { class: "after" }, held.size === null ? "Some have no end: there are too few validation records." : `Mean size: ${number(held.size, 3)}.`)));
    }
    if (trust.unfamiliar) {
      const strange = trust.unfamiliar, total = d3.sum(strange.bins), wide = 1 / strange.bins.length;
      const rows = strange.bins.map((value, place) => ({ x1: place * wide, x2: (place + 1) * wide, value: value / total }));
      boxes.push(panel("Familiar or not", `How strange records of ${split} are by ${strange.measure}, beside the validation split: level on the dashed line where they are alike. Unfamiliar: ${within(strange.share)}; ${percent(strange.expected)} is expected.`, (width) => Plot.plot({
        width, height: Math.round(width * 0.5), style, marginLeft: 52, marginBottom: 40, grid: true, x: { label: "share of validation records that are less strange", domain: [0, 1] }, y: { label: "share of records" },
        marks: [Plot.rectY(rows, { x1: "x1", x2: "x2", y: "value", fill: (row) => (row.x1 >= 1 - strange.expected - 1e-9 ? colours[1] : colours[0]), insetLeft: 0.5, insetRight: 0.5, tip: true }),
          Plot.ruleY([wide], { stroke: "currentColor", strokeOpacity: 0.6, strokeDasharray: "4 4" }), Plot.ruleY([0])],
      })));
    }
    if (facts.cost) {
      const cost = facts.cost, rows = [["Parameters", count(cost.parameters)], ["Weights", `${number(cost.memory / 1e6, 3)} MB`]];
      if (cost.flops) rows.push(["Operations for an answer", `${number(cost.flops / 1e6, 3)} MFLOP`]);
      rows.push(["Latency, one alone", `${number(1000 * cost.latency, 3)} ms`], [`Throughput, ${cost.batch} at once`, `${count(Math.round(cost.throughput))} a second`]);
      if (cost.peak !== null) rows.push(["Memory of the accelerator", `${number(cost.peak / 1e6, 3)} MB`]);
      if (cost.training_seconds !== null) rows.push(["The whole run", `${count(Math.round(cost.training_seconds))} s`], ["Energy", `about ${number(cost.energy, 3)} Wh`]);
      boxes.push(box("Cost", `Measured where this page was written (${cost.device}, ${cost.threads} threads). ${cost.energy === null ? "" : `Energy: time times ${cost.watts} W, which is assumed.`}`, table(["", ""], rows)));
    }
    if (boxes.length) section("trust", "Trust and cost", "Whether probabilities mean what they say, what answers may be doubted by, and what an answer costs.", el("div", { class: "panels" }, boxes));
  }

  function curves() {
    const panels = [];
    const loss = facts.curves.loss;
    if (loss.length) panels.push(panel("Training loss", "The mean loss of single batches, augmentation and dropout included, and its moving mean.", (width) => Plot.plot({
      width, height: Math.round(width * 0.62), style, marginLeft: 52, marginBottom: 40, grid: true, x: { label: "step" }, y: { label: "loss" },
      marks: [
        Plot.lineY(loss, { x: "step", y: "value", stroke: colours[0], strokeOpacity: 0.28 }),
        Plot.lineY(loss, Plot.windowY(Math.max(1, Math.round(loss.length / 25)), { x: "step", y: "value", stroke: colours[0], strokeWidth: 2 })),
        Plot.tip(loss, Plot.pointerX({ x: "step", y: "value", fill: "var(--card)" })),
      ],
    })));
    const names = Object.keys(facts.curves.validation);
    const beside = ["log_loss", "loss", "rmse", "mae", "roc_auc", "macro_f1"].filter((name) => name !== monitor);
    const shown = [monitor, ...beside].filter((name) => names.includes(name)).slice(0, 3);
    for (const name of shown) {
      const rows = facts.curves.validation[name].map((row) => ({ x: row.step, y: row.value, series: name }));
      panels.push(panel(`Validation: ${name.replaceAll("_", " ")}`, name === monitor ? "The score that chose the weights." : "Beside it.", lines({ rows, x: "step", y: name.replaceAll("_", " ") })));
    }
    if (panels.length) section("curves", "Curves", training ? training.text + "." : null, el("div", { class: "panels" }, panels));
  }

  function vitals() {
    if (!facts.vitals || !facts.vitals.length) return;
    section("vitals", "While it trained", "Looks at the network now and then: which layers learn, how far they move, which units are lost.",
      el("div", { class: "panels" }, facts.vitals.map((spec) => panel(spec.title, spec.note, lines({ ...spec, x: "step" })))));
  }

  function robustness() {
    if (!facts.robustness || !facts.robustness.length) return;
    section("robustness", "Robustness", "The score that counts on held-out records after what commonly happens to inputs in use.",
      el("div", { class: "panels" }, facts.robustness.map((spec) => panel(spec.title, spec.note, lines(spec)))));
  }

  function pictures() {
    if (!facts.panels || !facts.panels.length) return;
    section("answers", "Answers", `What the network makes of the ${facts.split} records.`,
      el("div", { class: "panels" }, facts.panels.map((spec) => panel(spec.title, spec.note, drawn[spec.kind](spec)))));
  }

  // Pictures that the model made, and what for.
  function made() {
    if (!facts.made || !facts.made.length) return;
    const words = (given) => Object.entries(given).filter(([name]) => name !== "number").map(([, value]) => value).join(", ");
    section("made", "Made", "Pictures out of noise, the first by their numbers, none chosen: `sonde predict` makes the same ones again.",
      el("div", { class: "cases" }, facts.made.map((one) => el("article", { class: "case" },
        el("img", { src: one.picture, alt: `made: ${words(one.given)}`, class: "small" }),
        el("div", { class: "body" }, el("p", { class: "id" }, `${one.given.number}${words(one.given) ? " \u00b7 " : ""}${words(one.given)}`))))));
  }

  function sliceTable() {
    if (!facts.slices || !facts.slices.length) return;
    const { node } = sortable([
      { title: "Slice", class: "wrap", key: (row) => row.name, show: (row) => row.name },
      { title: "Records", n: true, key: (row) => row.count, show: (row) => count(row.count) },
      { title: "Mean cost", n: true, key: (row) => row.cost, show: (row) => number(row.cost, 3) },
      { title: "95 % interval", n: true, key: (row) => row.low, show: (row) => `${number(Math.max(0, row.low), 3)} to ${number(row.high, 3)}` },
      { title: "Share of all cost", n: true, key: (row) => row.share, show: (row) => percent(row.share) },
      { title: "Worse than the rest", key: (row) => row.worse, show: (row) => row.worse ? el("strong", { class: "bad" }, "yes") : "cannot tell" },
    ], facts.slices);
    section("slices", "Slices", "Groups of records by the fields at hand, and ranges that a small tree found on one half of them and that are judged on the other. Worse: at 5 % over all groups that were looked at.", node);
  }

  // Records as they are.
  function showCase(one) {
    const parts = Object.values(one.inputs).flatMap((part) => {
      const found = [];
      if (part.picture) found.push(el("img", { src: part.picture, alt: `the record ${one.id}`, loading: "lazy", class: part.picture.startsWith("data:image/png") ? "small" : null }));
      if (part.sound) found.push(el("audio", { controls: true, src: part.sound, preload: "none" }));
      if (part.text !== undefined) found.push(el("div", { class: "text" }, part.text));
      if (part.values) found.push(el("div", { class: "text" }, el("dl", {}, Object.entries(part.values).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))));
      return found;
    });
    for (const [name, picture] of Object.entries(one.pictures || {})) parts.push(el("img", { src: picture, alt: `${name} of ${one.id}`, loading: "lazy", class: "small" }));
    const rows = [...Object.entries(one.truth).map(([name, value]) => [`true ${name}`, value]), ...Object.entries(one.answer)];
    return el("article", { class: "case" }, parts, el("div", { class: "body" },
      el("dl", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), el("p", { class: "id" }, `${one.id} \u00b7 cost ${number(one.cost, 3)}`)));
  }
  let chooseCell = () => {};
  function cases() {
    if (!facts.cases) return;
    const holder = el("div", { class: "cases" });
    const chips = el("div", { class: "row chips", role: "group", "aria-label": "Which records" });
    const choose = (name, list) => {
      for (const chip of chips.children) chip.setAttribute("aria-pressed", String(chip.dataset.name === name));
      holder.replaceChildren(...list.map(showCase));
    };
    const add = (name, list) => {
      const chip = el("button", { type: "button", "aria-pressed": "false", "data-name": name, onclick: () => choose(name, list) }, name);
      chips.append(chip);
    };
    add("worst", facts.cases.worst);
    add("best", facts.cases.best);
    const cells = Object.entries(facts.cells || {}).filter(([, list]) => list.length);
    const select = el("select", { "aria-label": "Mistakes", onchange: () => select.value && choose("", facts.cells[select.value]) },
      el("option", { value: "" }, "true class > answer"), cells.map(([name]) => el("option", { value: name }, name)));
    if (cells.length) chips.append(select);
    const node = section("cases", "Cases", "Records as they are, with their truth and the answer: the most costly first. A wrong label is often among them.", chips, holder);
    chooseCell = (name) => {
      if (!facts.cells[name]) return;
      select.value = name;
      choose("", facts.cells[name]);
      node.scrollIntoView();
    };
    choose("worst", facts.cases.worst);
  }

  function audit() {
    if (!facts.findings.length) return;
    const order = { fail: 0, warn: 1, pass: 2 };
    const sorted = [...facts.findings].sort((a, b) => order[a.verdict] - order[b.verdict]);
    const item = (one) => el("li", {}, el("span", { class: `mark ${one.verdict === "pass" ? "good" : one.verdict}` }, one.verdict),
      el("div", {}, el("strong", {}, one.check), `: ${one.text}.`,
        one.verdict !== "pass" && one.fix ? el("div", { class: "fix" }, `Fix: ${one.fix}.`) : null,
        one.verdict !== "pass" && one.records.length ? el("div", { class: "ids" }, one.records.slice(0, 8).join(", ") + (one.records.length > 8 ? " ..." : "")) : null));
    section("checks", "Checks", "Of the data, before anything was spent, and of the curves.", el("div", { class: "scroll" }, el("ul", { class: "findings" }, sorted.map(item))));
  }

  function again() {
    section("again", "Make it again", "The same recipe, data, seed and versions give the same weights.",
      el("pre", { tabindex: "0" }, facts.commands.join("\n")),
      el("pre", { tabindex: "0" }, [...Object.entries(facts.versions).map(([name, value]) => `${name} ${value}`), `seed ${facts.seed}`, `data ${facts.fingerprint}`].join("\n")),
      el("details", {}, el("summary", {}, "recipe.toml"), el("pre", { tabindex: "0" }, facts.recipe)));
  }

  glance();
  scoreTable();
  curves();
  vitals();
  pictures();
  doubts();
  robustness();
  made();
  sliceTable();
  cases();
  if (facts.without_data) main.append(el("p", { class: "lead" }, `Answers and cases are left out: ${facts.without_data}`));
  audit();
  again();
  document.getElementById("foot").textContent = `Written by sonde ${facts.written_by}. The page holds everything that it shows.`;
})();
