"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const models = new Map(data.models.map((model) => [model.fingerprint, model]));
  document.documentElement.classList.add("scripted");

  // ---- text: plotly reads tags in labels, so that what comes from data is escaped for it too
  const plain = (text) => String(text ?? "").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, length = 34) => {
    const letters = [...String(text ?? "")];
    if (letters.length <= length) return plain(letters.join(""));
    const tail = Math.floor(length * 0.35); // names differ at either end
    return plain(`${letters.slice(0, length - tail - 1).join("")}…${letters.slice(-tail).join("")}`);
  };
  const fixed = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const figures = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(3))));

  // ---- colours: Okabe and Ito's, which the colour-blind can tell apart; symbols and dashes repeat what they say
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8f98", "#c9b800"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  const dark = () => css("--paper") !== "#ffffff";
  const colour = (index) => (dark() && index % 8 === 0 ? "#4aa3df" : COLOURS[index % 8]);
  const symbol = (index) => SYMBOLS[(index + Math.floor(index / 8)) % 8];
  const dash = (index) => DASHES[Math.floor(index / 8) % 5];
  const by = data.group_by ?? "method"; // what has a colour of its own
  const methods = [...new Set(data.models.map((model) => model[by]))];
  const VERDICTS = {
    best: ["best by validation", "star"], tied: ["tied with it", "circle"], open: ["may differ", "diamond"],
    worse: ["worse", "triangle-down"], better: ["better on these images", "triangle-up"], "": ["not compared", "x"],
  };
  const verdictColour = { best: 0, tied: 2, open: 1, worse: 3, better: 4, "": 6 };

  // ---- figures: each is drawn again when its choice, the colour scheme or the width changes
  const drawings = [];
  function draw(id, make) {
    const place = byId(id);
    if (!place) return () => {}; // pages differ in the figures they have
    const now = () => {
      const { traces, layout } = make(place);
      const axis = { gridcolor: css("--line"), linecolor: css("--dim"), zeroline: false, automargin: true, tickcolor: css("--dim") };
      const narrow = place.clientWidth < 520;
      const whole = {
        height: Number(place.dataset.height), margin: { l: 56, r: 14, t: 14, b: 48 }, dragmode: false,
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
        font: { family: "system-ui, sans-serif", size: narrow ? 11 : 13, color: css("--ink") },
        hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--dim"), font: { color: css("--ink") }, align: "left", namelength: -1 },
        legend: narrow ? { orientation: "h", y: -0.2, yanchor: "top" } : { x: 1.01, y: 1 },
        ...layout,
      };
      place.style.minHeight = `${whole.height}px`;
      for (const name of Object.keys(whole)) if (/^[xy]axis/.test(name)) whole[name] = { ...axis, ...whole[name] };
      for (const name of ["xaxis", "yaxis"]) whole[name] = whole[name] ?? axis;
      Plotly.react(place, traces, whole, { displaylogo: false, responsive: true, displayModeBar: false });
    };
    drawings.push(now);
    now();
    return now;
  }
  const redraw = () => drawings.forEach((now) => now());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { document.documentElement.dataset.paper = "yes"; redraw(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.paper; redraw(); });
  const onChoice = (id, act) => byId(id)?.addEventListener("change", act);
  const clicked = (id, choose) => byId(id)?.on?.("plotly_click", (event) => choose(event.points[0]?.customdata));

  const about = (m) =>
    `<b>${short(m.name, 60)}</b><br>test ${fixed(m.accuracy)} (${fixed(m.accuracy_low, 3)} to ${fixed(m.accuracy_high, 3)})` +
    `<br>validation ${fixed(m.val_accuracy)}<br>${VERDICTS[m.verdict][0]}` +
    (m.never ? `<br>never predicts ${short(m.never, 60)}` : "") +
    (m.gain === null ? "" : `: ${m.gain >= 0 ? "+" : ""}${fixed(m.gain)} (${fixed(m.gain_low, 3)} to ${fixed(m.gain_high, 3)})`) +
    `<br>fit ${figures(m.fit_s)} s, test ${figures(m.predict_s)} s`;

  // ---- test accuracy of each model with its interval
  draw("forest", (place) => {
    const wide = place.clientWidth > 640;
    const shown = data.forest.map((fingerprint) => models.get(fingerprint)).reverse();
    const rows = new Map(shown.map((model, row) => [model.fingerprint, row]));
    const traces = Object.keys(VERDICTS).flatMap((verdict) => {
      const mine = shown.filter((model) => model.verdict === verdict);
      return mine.length === 0 ? [] : [{
        type: "scatter", mode: "markers", name: VERDICTS[verdict][0], x: mine.map((m) => m.accuracy),
        y: mine.map((m) => rows.get(m.fingerprint)), customdata: mine.map((m) => m.fingerprint),
        text: mine.map(about), hoverinfo: "text",
        marker: { color: colour(verdictColour[verdict]), symbol: VERDICTS[verdict][1], size: verdict === "best" ? 14 : 10 },
        error_x: { type: "data", symmetric: false, thickness: 1.6, width: 3, color: colour(verdictColour[verdict]),
          array: mine.map((m) => m.accuracy_high - m.accuracy), arrayminus: mine.map((m) => m.accuracy - m.accuracy_low) },
      }];
    });
    return { traces, layout: {
      yaxis: { tickvals: shown.map((_, row) => row), ticktext: shown.map((m) => short(m.name, wide ? 44 : 25)), range: [-0.7, shown.length - 0.3], ticks: "" },
      xaxis: { title: { text: "test accuracy, 95% interval" } }, margin: { l: 10, r: 10, t: 30, b: 46 },
      legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    } };
  });

  // ---- accuracy against cost
  const ticks = (values) => { // 1, 2, 5, 10, ... or the powers of ten alone where they are many
    const known = values.filter((value) => value > 0).map(Math.log10);
    const [low, high] = [Math.floor(Math.min(...known)), Math.ceil(Math.max(...known))];
    const steps = high - low > 4 ? [1] : [1, 2, 5];
    const tickvals = [];
    for (let power = low; power <= high; power++) for (const step of steps) tickvals.push(step * 10 ** power);
    return { tickvals, ticktext: tickvals.map((value) => (value >= 1000 ? value.toLocaleString("en") : String(Number(value.toPrecision(1))))) };
  };
  const points = (axis) => methods.flatMap((method) => {
    const mine = data.models.filter((m) => m[by] === method && m[axis] !== null && m[axis] !== undefined && m[axis] > 0);
    const index = methods.indexOf(method);
    return mine.length === 0 ? [] : [{
      type: "scatter", mode: "markers", name: short(method, 24), x: mine.map((m) => m[axis]), y: mine.map((m) => m.accuracy),
      text: mine.map(about), hoverinfo: "text", customdata: mine.map((m) => m.fingerprint),
      marker: { color: colour(index), symbol: symbol(index), opacity: 1, size: mine.map((m) => (m.verdict === "best" ? 16 : 10)),
        line: { width: mine.map((m) => (m.verdict === "best" ? 3 : 1)), color: mine.map((m) => (m.verdict === "best" ? css("--ink") : css("--paper"))) } },
      error_y: { type: "data", symmetric: false, thickness: 1, width: 0, color: css("--dim"),
        array: mine.map((m) => m.accuracy_high - m.accuracy), arrayminus: mine.map((m) => m.accuracy - m.accuracy_low) },
    }];
  });
  const drawCost = draw("cost-figure", () => {
    const axis = byId("cost-axis").value;
    return { traces: points(axis), layout: {
      xaxis: { type: "log", title: { text: data.costs[axis] }, ...ticks(data.models.map((m) => m[axis])) },
      yaxis: { title: { text: "test accuracy" } }, showlegend: true,
    } };
  });
  onChoice("cost-axis", drawCost);

  // ---- ranks over data sets
  draw("ranks-figure", () => {
    const best = Math.min(...data.ranks.map((line) => line.average_rank));
    return { traces: [{
      type: "scatter", mode: "markers", x: data.ranks.map((line) => line.average_rank), y: data.ranks.map((_, i) => i), hoverinfo: "text",
      text: data.ranks.map((line) => `<b>${short(line.method)}</b><br>average rank ${fixed(line.average_rank, 2)}<br>mean accuracy ${fixed(line.accuracy_mean)}`),
      marker: { size: 12, color: data.ranks.map((line) => colour(line.tied_with_best ? 2 : 3)), symbol: data.ranks.map((line) => (line.tied_with_best ? "circle" : "triangle-down")) },
    }], layout: {
      shapes: [{ type: "rect", xref: "x", yref: "paper", x0: best, x1: best + data.critical_difference, y0: 0, y1: 1, line: { width: 0 }, fillcolor: colour(2) + "22", layer: "below" }],
      xaxis: { title: { text: "average rank; shaded: within the critical difference of the first" }, rangemode: "normal" },
      yaxis: { tickvals: data.ranks.map((_, i) => i), ticktext: data.ranks.map((line) => short(line.method)), autorange: "reversed" }, showlegend: false,
    } };
  });

  // ---- layer by layer
  const drawLayers = draw("layers-figure", () => {
    const wanted = byId("layers-backbone")?.value ?? "";
    const shown = data.layers.filter((line) => wanted === "" || line.backbone === wanted);
    const layers = [...new Set(shown.flatMap((line) => line.layers))];
    const traces = shown.flatMap((line) => {
      const index = methods.indexOf(line.method);
      const x = line.layers.map((layer) => layers.indexOf(layer));
      const fill = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      const group = plain(line.name);
      return [
        { ...fill, y: line.accuracy_low, legendgroup: group },
        { ...fill, y: line.accuracy_high, fill: "tonexty", fillcolor: colour(index) + "1c", legendgroup: group },
        { type: "scatter", mode: "lines+markers", name: short(data.layer_backbones.length === 1 || wanted !== "" ? line.method : line.name), legendgroup: group, x, y: line.accuracy,
          text: line.layers.map((layer, i) => `<b>${short(line.name, 60)}</b><br>${plain(layer)}: ${fixed(line.accuracy[i])} (${fixed(line.accuracy_low[i], 3)} to ${fixed(line.accuracy_high[i], 3)})`),
          hoverinfo: "text", line: { color: colour(index), dash: wanted === "" ? DASHES[data.layer_backbones.indexOf(line.backbone) % 5] : "solid" }, marker: { symbol: symbol(index), size: 9, color: colour(index) } },
      ];
    });
    return { traces, layout: {
      xaxis: { tickvals: layers.map((_, i) => i), ticktext: layers.map((layer) => short(layer, 20)), title: { text: "layer" } },
      yaxis: { title: { text: "test accuracy" } }, showlegend: true,
    } };
  });
  onChoice("layers-backbone", drawLayers);

  // ---- learning curves
  const drawCurves = draw("curves-figure", () => {
    const wanted = byId("curves-features")?.value ?? "";
    const shown = data.curves.filter((line) => wanted === "" || line.features === wanted);
    const alone = new Set(shown.map((line) => line.features)).size === 1;
    return { traces: shown.map((line, number) => [line, alone ? methods.indexOf(line.method) : number]).map(([line, index]) => ({
      type: "scatter", mode: "lines+markers", name: short(alone ? line.method : line.name, 40), x: line.images_per_class, y: line.accuracy_mean,
      text: line.images_per_class.map((size, i) => `<b>${short(line.name, 60)}</b><br>${size} images a class: ${fixed(line.accuracy_mean[i])}<br>${line.n_repeats[i]} draws, ${fixed(line.accuracy_min[i])} to ${fixed(line.accuracy_max[i])}`),
      hoverinfo: "text", line: { color: colour(index), dash: dash(index) }, marker: { symbol: symbol(index), size: 9 },
      error_y: { type: "data", symmetric: false, width: 3, thickness: 1,
        array: line.accuracy_max.map((value, i) => value - line.accuracy_mean[i]), arrayminus: line.accuracy_mean.map((value, i) => value - line.accuracy_min[i]) },
    })), layout: {
      xaxis: { type: "log", title: { text: "training images a class" }, tickvals: [...new Set(data.curves.flatMap((line) => line.images_per_class))] },
      yaxis: { title: { text: "test accuracy" } }, showlegend: true,
    } };
  });
  onChoice("curves-features", drawCurves);

  // ---- training of the networks
  const drawHistory = draw("history-figure", () => {
    const metric = byId("history-metric").value;
    const shapes = data.history.flatMap((line, index) => line.best_epoch === null ? [] : [{
      type: "line", xref: "x", yref: "paper", x0: line.best_epoch, x1: line.best_epoch, y0: 0, y1: 1,
      line: { color: colour(index), width: 1.5, dash: "dash" },
    }]);
    const traces = data.history.flatMap((line, index) => ["val", "train"].map((part) => ({
      type: "scatter", mode: line.epoch.length === 1 ? "markers" : "lines", name: short(line.name), legendgroup: plain(line.fingerprint), showlegend: part === "val",
      x: line.epoch, y: line[`${part}_${metric}`], line: { color: colour(index), dash: part === "val" ? "solid" : "dot", width: part === "val" ? 2.5 : 1.5 },
      marker: { color: colour(index), symbol: symbol(index), size: 8 }, hoverinfo: "text",
      text: line.epoch.map((epoch, i) => `<b>${short(line.name, 60)}</b><br>epoch ${epoch}${epoch === line.best_epoch ? " (kept)" : ""}<br>${part === "val" ? "validation" : "training"} ${metric} ${fixed(line[`${part}_${metric}`][i])}`),
    })));
    return { traces, layout: { shapes, xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: metric } }, showlegend: true } };
  });
  onChoice("history-metric", drawHistory);

  // ---- one model
  const cell = (row, content, options = {}) => {
    const made = document.createElement(options.head ? "th" : "td");
    made.className = options.head ? "text" : "number";
    if (options.head) made.scope = "row";
    made.dataset.value = options.value ?? content;
    made.append(options.head ? Object.assign(document.createElement("bdi"), { textContent: content }) : content);
    if (options.small) made.append(Object.assign(document.createElement("small"), { textContent: options.small }));
    row.append(made);
  };
  const chosen = () => data.details[byId("model-choice")?.value];
  const drawConfusion = draw("confusion-figure", (place) => {
    const names = chosen().classes.map((line) => line[0]);
    const counts = names.map(() => names.map(() => 0));
    for (const [label, predicted, count] of chosen().confusion) counts[label][predicted] = count;
    const totals = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
    const shares = counts.map((row, i) => row.map((count) => (totals[i] ? count / totals[i] : 0)));
    const few = names.length <= (place.clientWidth < 520 ? 8 : 20);
    const side = Math.min(place.clientWidth, 640, Math.max(280, 90 + names.length * 40));
    place.dataset.height = side;
    const labels = names.map((name) => short(name, 16));
    const every = names.length > 40 ? Math.ceil(names.length / 40) : 1;
    const ticks = names.map((_, i) => i).filter((i) => i % every === 0);
    const axis = { tickvals: ticks, ticktext: ticks.map((i) => labels[i]), showgrid: false, ticks: "", constrain: "domain" };
    return { traces: [{
      type: "heatmap", z: shares, x: names.map((_, i) => i), y: names.map((_, i) => i), zmin: 0, zmax: 1, xgap: few ? 2 : 0, ygap: few ? 2 : 0,
      colorscale: [[0, css("--heat-0")], [1, css("--heat-1")]], showscale: false, hoverinfo: "text",
      hovertext: counts.map((row, i) => row.map((count, j) => `is ${short(names[i], 50)}<br>called ${short(names[j], 50)}<br>${count} of ${totals[i]}`)),
    }], layout: {
      annotations: few ? counts.flatMap((row, i) => row.flatMap((count, j) => count === 0 ? [] : [{ x: j, y: i, text: String(count), showarrow: false,
        font: { size: 12, color: shares[i][j] > 0.5 ? (dark() ? "#0b1014" : "#ffffff") : css("--ink") } }])) : [],
      xaxis: { ...axis, title: { text: "predicted" }, tickangle: names.length > 6 ? -45 : 0 },
      yaxis: { ...axis, title: { text: "true" }, autorange: "reversed", scaleanchor: "x" }, margin: { l: 10, r: 10, t: 10, b: 10 },
      width: side, height: side,
    } };
  });
  function showModel() {
    const detail = chosen();
    if (!detail) return;
    byId("model-name").textContent = detail.name;
    byId("model-facts").replaceChildren(...detail.facts.map(([term, text]) => {
      const pair = document.createElement("div");
      if (text.length > 40) pair.className = "wide";
      pair.append(Object.assign(document.createElement("dt"), { textContent: term }), document.createElement("dd"));
      pair.lastChild.append(Object.assign(document.createElement("bdi"), { textContent: text }));
      return pair;
    }));
    byId("class-table").tBodies[0].replaceChildren(...detail.classes.map(([name, support, recall, rl, rh, precision, pl, ph, f1, fl, fh]) => {
      const row = document.createElement("tr");
      cell(row, name, { head: true });
      cell(row, String(support));
      cell(row, fixed(recall), { value: recall, small: `${fixed(rl, 3)}–${fixed(rh, 3)}` });
      cell(row, fixed(precision), { value: precision, small: `${fixed(pl, 3)}–${fixed(ph, 3)}` });
      cell(row, fixed(f1), { value: f1, small: fl === null ? "" : `${fixed(fl, 3)}–${fixed(fh, 3)}` });
      return row;
    }));
    byId("class-table").querySelectorAll("[aria-sort]").forEach((head) => head.removeAttribute("aria-sort"));
    drawConfusion();
  }
  function chooseModel(fingerprint) {
    if (!data.details[fingerprint]) return;
    byId("model-choice").value = fingerprint;
    showModel();
    byId("model").scrollIntoView();
  }
  onChoice("model-choice", showModel);
  for (const link of document.querySelectorAll("a[data-model]")) {
    link.addEventListener("click", (event) => { event.preventDefault(); chooseModel(link.dataset.model); byId("model-choice").focus({ preventScroll: true }); });
  }
  clicked("forest", chooseModel);
  clicked("cost-figure", chooseModel);

  // ---- mistakes
  function showMistakes() {
    const list = byId("mistake-list");
    const order = byId("mistake-order").value === "sure" ? ["sure", "share"] : ["share", "sure"];
    const model = byId("mistake-model").value;
    const images = [...list.children].sort((a, b) => b.dataset[order[0]] - a.dataset[order[0]] || b.dataset[order[1]] - a.dataset[order[1]]);
    for (const image of images) image.hidden = model !== "" && !image.dataset.wrong.split(" ").includes(model);
    list.replaceChildren(...images);
  }
  onChoice("mistake-order", showMistakes);
  onChoice("mistake-model", showMistakes);

  // ---- map of the features
  const drawMap = draw("map-figure", () => {
    const map = data.maps[Number(byId("map-layer").value)];
    const method = map.tsne && byId("map-method").value === "tsne" ? "tsne" : "pca";
    const wanted = byId("map-class").value;
    const classes = data.map_classes;
    const rows = new Map(classes.map((name) => [name, []]));
    map.labels.forEach((label, row) => rows.get(label).push(row));
    const traces = [...rows].map(([name, mine], index) => {
      const grey = wanted !== "" && wanted !== name;
      return {
        type: "scatter", mode: "markers", name: short(name, 24), x: mine.map((row) => map[method][0][row]), y: mine.map((row) => map[method][1][row]),
        text: mine.map((row) => `<b>${short(name, 50)}</b><br>${short(map.ids[row], 60)}`), hoverinfo: "text",
        marker: { color: grey ? css("--dim") : colour(index), symbol: symbol(index), size: grey ? 5 : 8, opacity: grey ? 0.45 : 0.85 },
      };
    });
    traces.sort((a, b) => a.marker.opacity - b.marker.opacity);
    const share = (i) => `component ${i + 1} (${(100 * (map.shares[i] ?? 0)).toFixed(1)}% of the variance)`;
    const bare = method === "tsne" ? { showticklabels: false, ticks: "" } : {};
    byId("map-method").disabled = !map.tsne;
    return { traces, layout: {
      xaxis: { ...bare, title: { text: method === "pca" ? share(0) : "t-SNE" } }, yaxis: { ...bare, title: { text: method === "pca" ? share(1) : "" } },
      showlegend: classes.length <= 24,
    } };
  });
  for (const id of ["map-layer", "map-method", "map-class"]) onChoice(id, drawMap);

  // ---- sorting
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("tr.columns th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === (head.classList.contains("text") ? null : "descending") || head.getAttribute("aria-sort") === "descending";
        table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.value;
        const numeric = !head.classList.contains("text");
        const compare = (a, b) => numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), undefined, { numeric: true });
        const empty = (row) => key(row) === "";
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => empty(a) - empty(b) || (up ? compare(a, b) : compare(b, a)));
        table.tBodies[0].append(...rows);
      });
    });
  }
  document.documentElement.dataset.ready = "yes";
})();
