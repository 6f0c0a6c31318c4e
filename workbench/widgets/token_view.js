// Token view: rollouts of one training step, tokens coloured by entropy, log-prob or advantage.
// Runs as an anywidget (frames arrive over traitlets) and in static pages (frames sit in a JSON block).
// All text of prompts, responses and tokens reaches the page through textContent only.

// Cividis and PuOr (purple < 0 < orange), 11 stops each.
const CIVIDIS = [[0, 34, 78], [8, 51, 112], [53, 69, 108], [79, 87, 108], [102, 105, 112], [125, 124, 120],
  [148, 142, 119], [174, 163, 113], [200, 184, 102], [229, 207, 82], [254, 232, 56]];
const PUOR = [[45, 0, 75], [84, 39, 136], [128, 115, 172], [178, 171, 210], [216, 218, 235], [247, 247, 247],
  [254, 224, 182], [253, 184, 99], [224, 130, 20], [179, 88, 6], [127, 59, 8]];
const PAGE = { light: [255, 255, 255], dark: [17, 17, 17] };
const SURPRISE_CEILING = 5, ADVANTAGE_CEILING = 2, FADE = 0.3;

const NUMBERS = [["entropy", "entropy", " nats"], ["logp", "log-prob", ""], ["old_logp", "old log-prob", ""],
  ["rollout_logp", "sampled log-prob", ""], ["ref_logp", "reference log-prob", ""], ["advantage", "advantage", ""]];

function mix(a, b, t) { return a.map((value, i) => value + (b[i] - value) * t); }

function stop(scale, t) {
  const place = Math.min(Math.max(t, 0), 1) * (scale.length - 1), left = Math.min(Math.floor(place), scale.length - 2);
  return mix(scale[left], scale[left + 1], place - left);
}

// High values stand out from the page: dark on light pages, bright on dark ones; values near 0 fade into the page.
function sequential(t, dark) {
  const colour = stop(CIVIDIS, dark ? t : 1 - t);
  return mix(dark ? PAGE.dark : PAGE.light, colour, Math.min(1, Math.max(t, 0) / FADE));
}

function luminance(colour) {
  const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const css = (colour) => `rgb(${colour.map(Math.round).join(",")})`;
// 0.179 is where black and white text have the same contrast (4.58:1), so one of them always reaches 4.5:1.
const ink = (colour) => luminance(colour) > 0.179 ? "#000" : "#fff";
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
const show = (value, digits = 3) => value == null ? "not recorded" : String(value.toFixed(digits)).replace("-", "−");

function modes(ceiling) {
  return {
    entropy: { label: "entropy", value: (t, i) => t.entropy?.[i], ends: ["0", `≥ ${ceiling} nats`],
      colour: (v, dark) => sequential(v / ceiling, dark) },
    logp: { label: "log-prob", value: (t, i) => (t.old_logp ?? t.rollout_logp ?? t.logp)?.[i], ends: ["0", `≤ −${SURPRISE_CEILING} nats`],
      colour: (v, dark) => sequential(-v / SURPRISE_CEILING, dark), descending: true },
    advantage: { label: "advantage", value: (t, i) => t.advantage?.[i], ends: [`≤ −${ADVANTAGE_CEILING}`, `≥ +${ADVANTAGE_CEILING}`],
      colour: (v) => stop(PUOR, 0.5 + v / ADVANTAGE_CEILING / 2), signed: true },
  };
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = text;
  return node;
}

function isDark() {
  const lab = document.body.dataset.jpThemeLight;
  return lab ? lab === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function createView(root, header, load) {
  const state = { frame: null, mode: "entropy", raw: false, asked: null };
  const palette = modes(header.ceiling);
  root.classList.add("wb-view");
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", `Rollouts of run ${header.run}, token by token`);

  const nearest = (step) => header.steps.reduce((a, b) => Math.abs(b - step) < Math.abs(a - step) ? b : a);
  const index = () => header.steps.indexOf(state.frame?.step);
  const select = (step) => { state.asked = step; load(nearest(step)); };
  const move = (by) => { const next = header.steps[index() + by]; if (next != null) select(next); };

  const bar = stepBar(header, move, (i) => select(header.steps[i]));
  const curve = entropyCurve(header, select);
  const controls = controlBar(palette, state, () => draw());
  const detail = element("div", "wb-detail");
  detail.setAttribute("aria-live", "polite");
  const groups = element("div", "wb-groups");
  root.append(bar.node, curve.node, controls.node, detail, groups);

  function draw() {
    if (!state.frame) return;
    const dark = isDark();
    const clicked = state.asked != null && state.asked !== state.frame.step
      ? `Step ${state.asked} was clicked; the nearest kept step is ${state.frame.step}.` : "";
    bar.update(index(), state.frame, clicked);
    curve.update(state.frame.step);
    controls.update(dark);
    detail.textContent = "Point at a token, or focus one and use the arrow keys, to read its numbers.";
    groups.replaceChildren(...state.frame.groups.map((g) => groupNode(g, state.frame, palette[state.mode], state.raw, dark)));
  }

  const tell = (event) => {
    const token = event.target.closest?.(".wb-token");
    if (token) detail.textContent = describe(token.wb);
  };
  groups.addEventListener("mouseover", tell);
  groups.addEventListener("focusin", tell);
  root.addEventListener("keydown", (event) => {
    if (event.target.closest("input")) return;
    const handled = event.target.classList.contains("wb-token") ? moveFocus(event, groups) : moveStep(event, move);
    if (handled) { event.preventDefault(); event.stopPropagation(); }
  });
  const stopListening = listen(root, header.run, select, draw);
  return { show(frame) { state.frame = frame; draw(); }, stopListening };
}

// A click on any plotly figure of this run whose meta says so selects its step; figures may be painted later than we are.
// A theme change repaints.
function listen(root, run, select, draw) {
  const abort = new AbortController(), hooked = new WeakSet();
  document.addEventListener("pointerover", (event) => {
    const plot = event.target.closest?.(".js-plotly-plot");
    if (!plot?.on || hooked.has(plot)) return;
    hooked.add(plot);
    plot.on("plotly_click", (click) => {
      const meta = plot.layout?.meta;
      if (abort.signal.aborted || meta?.select !== "step" || meta.run !== run) return;
      select(Number(click.points[0].x));
      root.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }, { capture: true, signal: abort.signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal: abort.signal });
  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => { abort.abort(); theme.disconnect(); };
}

function stepBar(header, move, pick) {
  const node = element("div", "wb-bar"), label = element("span", "wb-step"), note = element("span", "wb-note");
  const back = element("button", "", "◀"), forward = element("button", "", "▶"), slider = element("input");
  back.setAttribute("aria-label", "previous kept step");
  forward.setAttribute("aria-label", "next kept step");
  back.onclick = () => move(-1);
  forward.onclick = () => move(1);
  Object.assign(slider, { type: "range", min: 0, max: header.steps.length - 1 });
  slider.setAttribute("aria-label", "rollout step");
  slider.oninput = () => pick(Number(slider.value));
  note.setAttribute("role", "status");
  node.append(back, slider, forward, label, note);
  const entropy = new Map(header.curve);
  return { node, update(i, frame, clicked) {
    slider.value = i;
    slider.setAttribute("aria-valuetext", `step ${frame.step}`);
    back.disabled = i <= 0;
    forward.disabled = i >= header.steps.length - 1;
    const shown = frame.groups.reduce((sum, g) => sum + g.rollouts.length, 0);
    const mean = entropy.has(frame.step) ? ` · mean entropy ${show(entropy.get(frame.step))} nats` : "";
    label.textContent = `step ${frame.step}${mean} · shown ${shown} of ${frame.total} responses, ${frame.groups.length} of ${frame.total_groups} prompts`;
    note.textContent = clicked;
  } };
}

// Small clickable entropy curve; dots are the kept steps.
function entropyCurve(header, select) {
  const box = element("div", "wb-curve-box");
  if (header.curve.length < 2) { box.hidden = true; return { node: box, update() {} }; }
  const xs = header.curve.map((p) => p[0]), ys = header.curve.map((p) => p[1]);
  const low = Math.min(...xs, ...header.steps), high = Math.max(...xs, ...header.steps), top = Math.max(...ys) * 1.1 || 1;
  const x = (step) => 100 * (step - low) / (high - low || 1), y = (value) => 100 * (1 - value / top);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "wb-curve");
  svg.setAttribute("aria-hidden", "true"); // the slider says the same to a screen reader
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  line.setAttribute("points", header.curve.map(([step, value]) => `${x(step)},${y(value)}`).join(" "));
  svg.append(line);
  const plot = element("div"), values = new Map(header.curve);
  plot.style.position = "relative";
  plot.append(svg);
  const dots = header.steps.map((step) => {
    const dot = element("i", "wb-dot");
    dot.style.left = `${x(step)}%`;
    dot.style.top = `${y(values.get(step) ?? 0)}%`;
    plot.append(dot);
    return dot;
  });
  plot.onclick = (event) => {
    const frame = svg.getBoundingClientRect();
    select(Math.round(low + (high - low) * (event.clientX - frame.left) / frame.width));
  };
  const axis = element("div", "wb-axis");
  axis.append(element("span", "", `step ${low}`), element("span", "", `entropy, 0 to ${top.toPrecision(2)} nats; circles are kept steps: click one`),
    element("span", "", `step ${high}`));
  box.append(plot, axis);
  return { node: box, update: (step) => dots.forEach((dot, i) => dot.classList.toggle("wb-on", header.steps[i] === step)) };
}

function controlBar(palette, state, draw) {
  const node = element("div", "wb-bar"), name = `wb-${Math.random().toString(36).slice(2)}`;
  node.append(element("span", "", "Colour:"));
  for (const [key, mode] of Object.entries(palette)) {
    node.append(labelled({ type: "radio", name, checked: key === state.mode }, mode.label, () => { state.mode = key; draw(); }));
  }
  node.append(labelled({ type: "checkbox" }, "raw text", (input) => { state.raw = input.checked; draw(); }));
  const legend = element("span", "wb-legend"), low = element("span"), ramp = element("i"), high = element("span");
  legend.append(low, ramp, high);
  node.append(legend);
  return { node, update(dark) {
    const mode = palette[state.mode], ceiling = mode.signed ? ADVANTAGE_CEILING : 1, stops = [];
    for (let i = 0; i <= 10; i++) {
      const t = i / 10;
      stops.push(css(mode.signed ? mode.colour((2 * t - 1) * ceiling) : sequential(t, dark)));
    }
    low.textContent = mode.ends[0];
    high.textContent = mode.ends[1] + (mode.signed ? "  (underlined: + solid, − dashed)" : "");
    ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    legend.hidden = state.raw;
  } };
}

function labelled(attributes, text, changed) {
  const label = element("label"), input = Object.assign(element("input"), attributes);
  input.onchange = () => changed(input);
  label.append(input, text);
  return label;
}

function groupNode(group, frame, mode, raw, dark) {
  const node = element("section", "wb-group");
  node.append(element("h4", "", group.prompt));
  const line = element("p", "", `shown ${group.rollouts.length} of ${group.size} responses · mean reward ${show(group.mean, 2)}`);
  if (group.flat) line.append(" · ", element("span", "wb-flat", "zero variance: all rewards equal, no learning signal"));
  node.append(line, ...group.rollouts.map((rollout, i) => rolloutNode(rollout, i, frame, mode, raw, dark)));
  return node;
}

function rolloutNode(rollout, position, frame, mode, raw, dark) {
  const node = element("div", "wb-rollout"), mark = rollout.correct ? "✓ correct" : "✗ wrong";
  const advantage = rollout.advantage == null ? "" : ` · A ${signed(rollout.advantage)}`;
  const measures = element("div", "wb-measures", `${mark} · R ${show(rollout.reward, 2)}${advantage}`);
  const cut = rollout.tokens.piece.length < rollout.length ? `first ${rollout.tokens.piece.length} of ` : "";
  measures.append(element("br"), `${cut}${rollout.length} tokens${rollout.finished ? "" : ", cut off"}`);
  const text = element(raw ? "pre" : "div", "wb-text", raw ? rollout.text : null);
  if (!raw) text.append(...rollout.tokens.piece.map((_, i) => tokenNode(rollout, i, frame, mode, dark)));
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `response ${position + 1}, ${mark.slice(2)}`);
  node.append(measures, text);
  return node;
}

function tokenNode(rollout, i, frame, mode, dark) {
  const piece = frame.pieces[rollout.tokens.piece[i]], value = mode.value(rollout.tokens, i);
  const node = element("span", "wb-token", piece);
  node.wb = { piece, i, tokens: rollout.tokens };
  node.tabIndex = i === 0 ? 0 : -1;
  if (piece.includes("\n")) node.classList.add("wb-break");
  if (value != null) {
    const colour = mode.colour(value, dark);
    node.style.background = css(colour);
    node.style.color = ink(colour);
    if (mode.signed && value !== 0) node.classList.add(value > 0 ? "wb-plus" : "wb-minus");
  }
  return node;
}

function describe({ piece, i, tokens }) {
  const numbers = NUMBERS.filter(([key]) => tokens[key]).map(([key, label, unit]) => `${label} ${show(tokens[key][i])}${unit}`);
  return `“${piece}” · position ${i} · ${numbers.join(" · ")}`;
}

function moveStep(event, move) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) move(by);
  return Boolean(by);
}

function moveFocus(event, groups) {
  const token = event.target, texts = [...groups.querySelectorAll(".wb-text")], row = texts.indexOf(token.parentNode);
  const target = {
    ArrowLeft: () => token.previousElementSibling, ArrowRight: () => token.nextElementSibling,
    ArrowUp: () => texts[row - 1]?.firstElementChild, ArrowDown: () => texts[row + 1]?.firstElementChild,
  }[event.key]?.();
  target?.focus();
  return Boolean(target);
}

// Static pages: each block with data becomes a view.
export function mountAll() {
  for (const block of document.querySelectorAll(".wb-tokens:not([data-mounted])")) {
    block.dataset.mounted = "true";
    const { header, frames } = JSON.parse(block.querySelector("script").textContent);
    const root = block.appendChild(element("div"));
    const view = createView(root, header, (step) => view.show(frames.find((f) => f.step === step)));
    view.show(frames[0]);
  }
}

// anywidget: Python sends a frame when `step` changes; frames seen once are kept.
function render({ model, el }) {
  const frames = new Map();
  const load = (step) => {
    if (frames.has(step)) return view.show(frames.get(step));
    model.set("step", step);
    model.save_changes();
  };
  const receive = () => {
    const frame = model.get("frame");
    frames.set(frame.step, frame);
    view.show(frame);
  };
  const first = model.get("frame");
  frames.set(first.step, first);
  const view = createView(el, model.get("header"), load);
  model.on("change:frame", receive);
  view.show(first);
  return () => { view.stopListening(); model.off("change:frame", receive); };
}

export default { render };
