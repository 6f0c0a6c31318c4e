// Token view: rollouts of one training step, tokens coloured by entropy, log-prob, advantage, ratio, ΔH or S − E[S].
// Runs as an anywidget (frames arrive over traitlets) and in static pages (frames sit in a JSON block).
// All text of prompts, responses and tokens reaches the page through textContent only.

// Cividis and PuOr (purple < 0 < orange), 11 stops each.
const CIVIDIS = [[0, 34, 78], [8, 51, 112], [53, 69, 108], [79, 87, 108], [102, 105, 112], [125, 124, 120],
  [148, 142, 119], [174, 163, 113], [200, 184, 102], [229, 207, 82], [254, 232, 56]];
const PUOR = [[45, 0, 75], [84, 39, 136], [128, 115, 172], [178, 171, 210], [216, 218, 235], [247, 247, 247],
  [254, 224, 182], [253, 184, 99], [224, 130, 20], [179, 88, 6], [127, 59, 8]];
const PAGE = { light: [255, 255, 255], dark: [17, 17, 17] };
const FADE = 0.3, MORE = 4;

const NUMBERS = [["entropy", "entropy", " nats"], ["old_logp", "log-prob before the step", ""], ["logp", "when trained on", ""],
  ["rollout_logp", "when sampled", ""], ["ref_logp", "reference", ""], ["advantage", "advantage", ""],
  ["ratio", "ratio", ""], ["weight", "weight", ""], ["change", "ΔH", " nats"], ["gap", "S − E[S]", " nats"],
  ["difference", "entropy minus the other run's after the same text", " nats"]];

// Characters that would act on the layout instead of showing: control characters (␛ for ESC), bidi controls, zero widths.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const seen = (text) => text.replace(UNSEEN, (c) => c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0))
  : `⟨${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

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

const number = (value) => String(Number(value.toPrecision(3)));
const surprise = (c) => c.old_logp ?? c.rollout_logp ?? c.logp;

function sequentialMode(label, column, ceiling, sign) {
  return { label, column, value: (v) => sign * v, scale: (t, dark) => sequential(t, dark), colour: (v, dark) => sequential(sign * v / ceiling, dark),
    ends: [sign > 0 ? "0" : "0", sign > 0 ? `≥ ${number(ceiling)} nats` : `≤ −${number(ceiling)} nats`] };
}

function signedMode(label, column, ceiling, unit = "", centre = 0) {
  const end = (v) => centre ? number(centre + v) : (v < 0 ? "−" : "+") + number(Math.abs(v));
  return { label, column, signed: true, centre, scale: (t) => stop(PUOR, t),
    colour: (v) => stop(PUOR, 0.5 + (v - centre) / ceiling / 2), ends: [`≤ ${end(-ceiling)}`, `≥ ${end(ceiling)}${unit}`] };
}

function modes(scales) {
  return {
    entropy: sequentialMode("entropy", (c) => c.entropy, scales.entropy, 1),
    logp: sequentialMode("log-prob", surprise, scales.logp, -1),
    advantage: signedMode("advantage", (c) => c.advantage, scales.advantage),
    ratio: signedMode("ratio", (c) => c.ratio, scales.ratio, "", 1),
    change: signedMode("ΔH", (c) => c.change, scales.change, " nats"),
    gap: signedMode("S − E[S]", (c) => c.gap, scales.gap, " nats"),
    difference: signedMode("between runs", (c) => c.difference, scales.difference, " nats"),
  };
}

// Columns come as binary from a kernel and packed (static_frames.py) from a page; NaN means "not recorded".
function column(values, Kind) {
  if (values.base64 != null) return unpack(values);
  return new Kind(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength));
}

const PACKED = { u2: Uint16Array, u4: Uint32Array, i2: Int16Array, f4: Float32Array };
const MISSING = -32768;

function unpack({ base64, type, unit }) {
  const numbers = new PACKED[type](Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
  return unit ? Float32Array.from(numbers, (v) => v === MISSING ? NaN : v / unit) : numbers;
}

function decode(frame) {
  const columns = {};
  for (const [name, values] of Object.entries(frame.columns)) {
    columns[name] = column(values, /^(piece|mark|top\d+)$/.test(name) ? Uint32Array : Float32Array);
  }
  return { ...frame, columns };
}

const at = (values, i) => { const v = values?.[i]; return v == null || Number.isNaN(v) ? null : v; };

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

// `load({step, ...})` asks for a page; `ask(row)`, where there is a kernel, for the whole text of a response.
function createView(root, header, load, ask) {
  const state = { header, frame: null, mode: "entropy", raw: false, asked: null, request: {}, whole: new Map() };
  root.classList.add("wb-view");
  root.setAttribute("role", "region");
  root.tabIndex = 0;

  const steps = () => state.frame?.pinned_steps?.length ? state.frame.pinned_steps : state.header.steps;
  const nearest = (step) => steps().reduce((a, b) => Math.abs(b - step) < Math.abs(a - step) ? b : a);
  const index = () => steps().indexOf(state.frame?.step);
  const request = (change) => { state.request = { offset: 0, ...state.request, ...change }; load(state.request); };
  const select = (step) => { state.asked = step; request({ step: nearest(step), offset: 0 }); };
  const move = (by) => {
    const known = steps(), here = state.frame?.step ?? 0;
    const next = by > 0 ? known.find((s) => s > here) : known.findLast((s) => s < here);
    if (next != null) select(next);
  };

  const bar = stepBar(move, (i) => select(steps()[i]));
  const curveBox = element("div");
  let curve = { update() {} };
  const controls = controlBar(state, () => draw());
  const finder = ask ? findBar(state, request) : { node: "", update() {} };
  const detail = element("div", "wb-detail");
  detail.setAttribute("aria-live", "polite");
  const groups = element("div", "wb-groups");
  root.append(bar.node, curveBox, controls.node, finder.node, detail, groups);
  rehead();

  function rehead() {
    root.setAttribute("aria-label", `Rollouts of run ${state.header.run}, token by token`);
    state.palette = modes(state.header.scales);
    curve = entropyCurve(state.header, select);
    curveBox.replaceChildren(curve.node);
  }

  function draw() {
    if (!state.frame) return;
    const dark = isDark(), held = focused(groups);
    const clicked = state.asked != null && state.asked !== state.frame.step
      ? `Step ${state.asked} was clicked; the nearest kept step is ${state.frame.step}.` : "";
    bar.update(index(), steps(), state, clicked);
    curve.update(state.frame.step);
    controls.update(dark);
    finder.update();
    const idle = "Point at a token, or focus one and use the arrow keys, to read its numbers.";
    detail.textContent = state.frame.columns.entropy ? idle : "Not recorded: numbers per token. The text is all this run kept.";
    groups.replaceChildren(...state.frame.groups.map((g) => groupNode(g, state, dark, { request, ask })));
    if (!state.frame.groups.length) groups.append(element("p", "", "No response matches."));
    if (held) (texts(groups)[held.row]?.querySelectorAll(".wb-token")[held.place] ?? root).focus({ preventScroll: true });
  }

  const tell = (event) => {
    const token = event.target.closest?.(".wb-token");
    if (!token) return;
    detail.replaceChildren(describe(token.wb, state.frame), ...alternatives(token.wb, state.frame));
    detail.style.minHeight = `${detail.offsetHeight}px`; // it never shrinks, lest the tokens move under the pointer
  };
  groups.addEventListener("mouseover", tell);
  groups.addEventListener("focusin", tell);
  root.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select")) return;
    const handled = event.target.classList.contains("wb-token") && !event.shiftKey ? moveFocus(event, groups) : moveStep(event, move);
    if (handled) { event.preventDefault(); event.stopPropagation(); }
  });
  const stopListening = listen(root, () => state.header.run, select, draw);
  return {
    show(frame, given) { state.frame = decode(frame); if (given) state.request = { ...given }; draw(); },
    head(next) { const other = next.run !== state.header.run; state.header = next; if (other) { state.asked = null; state.whole.clear(); } rehead(); draw(); },
    whole({ row, text }) { state.whole.set(`${state.frame.step}/${row}`, text); draw(); },
    stopListening,
  };
}

const texts = (groups) => [...groups.querySelectorAll(".wb-text")];

function focused(groups) {
  const token = document.activeElement;
  if (!token?.classList.contains("wb-token") || !groups.contains(token)) return null;
  return { row: texts(groups).indexOf(token.parentNode), place: token.wb.i };
}

// A click on any plotly figure of this run whose meta says so selects its step; figures may be painted later than we are.
// A theme change repaints.
function listen(root, runShown, select, draw) {
  const abort = new AbortController(), hooked = new WeakSet();
  document.addEventListener("pointerover", (event) => {
    const plot = event.target.closest?.(".js-plotly-plot");
    if (!plot?.on || hooked.has(plot)) return;
    hooked.add(plot);
    plot.on("plotly_click", (click) => {
      const meta = plot.layout?.meta;
      if (abort.signal.aborted || meta?.select !== "step" || meta.run !== runShown()) return;
      select(Number(click.points[0].x));
      root.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }, { capture: true, signal: abort.signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal: abort.signal });
  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => { abort.abort(); theme.disconnect(); };
}

function stepBar(move, pick) {
  const node = element("div", "wb-bar"), label = element("span", "wb-step"), note = element("span", "wb-note");
  const back = element("button", "", "◀"), forward = element("button", "", "▶"), slider = element("input");
  back.setAttribute("aria-label", "previous kept step");
  forward.setAttribute("aria-label", "next kept step");
  back.onclick = () => move(-1);
  forward.onclick = () => move(1);
  Object.assign(slider, { type: "range", min: 0 });
  slider.setAttribute("aria-label", "rollout step");
  slider.oninput = () => pick(Number(slider.value));
  note.setAttribute("role", "status");
  node.append(back, slider, forward, label, note);
  return { node, update(i, steps, { frame, header }, clicked) {
    slider.max = steps.length - 1;
    slider.value = i;
    slider.setAttribute("aria-valuetext", `step ${frame.step}`);
    back.disabled = steps[0] >= frame.step;
    forward.disabled = steps.at(-1) <= frame.step;
    const shown = frame.groups.reduce((sum, g) => sum + g.rollouts.length, 0);
    const mean = header.curve.find(([step]) => step === frame.step)?.[1];
    label.textContent = `step ${frame.step}${mean == null ? "" : ` · mean entropy ${show(mean)} nats`} · shown ${shown} of ${frame.total} responses, ${frame.groups.length} of ${frame.total_groups} prompts`;
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

function controlBar(state, draw) {
  const node = element("div", "wb-bar"), name = `wb-${Math.random().toString(36).slice(2)}`;
  node.append(element("span", "", "Colour:"));
  const inputs = {};
  for (const [key, mode] of Object.entries(modes(state.header.scales))) {
    const label = labelled({ type: "radio", name, checked: key === state.mode }, mode.label, () => { state.mode = key; draw(); });
    inputs[key] = label;
    node.append(label);
  }
  node.append(labelled({ type: "checkbox" }, "raw text", (input) => { state.raw = input.checked; draw(); }));
  const legend = element("span", "wb-legend"), low = element("span"), ramp = element("i"), high = element("span");
  legend.append(low, ramp, high);
  node.append(legend);
  return { node, update(dark) {
    const mode = state.palette[state.mode];
    for (const [key, label] of Object.entries(inputs)) {
      const recorded = Boolean(state.palette[key].column(state.frame.columns));
      label.firstChild.disabled = !recorded;
      label.title = recorded ? "" : "not recorded";
      label.classList.toggle("wb-off", !recorded);
      if (key === "difference") label.hidden = !recorded;
    }
    const stops = Array.from({ length: 11 }, (_, i) => css(mode.scale(i / 10, dark)));
    low.textContent = mode.ends[0];
    high.textContent = mode.ends[1] + (mode.signed ? `  (underlined: above ${mode.centre} solid, below dashed)` : "");
    ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    legend.hidden = state.raw;
  } };
}

// Search, order, pages of prompts, and following the prompts on show through training.
function findBar(state, request) {
  const node = element("div", "wb-bar wb-find"), search = element("input"), sort = element("select");
  Object.assign(search, { type: "search", placeholder: "search prompts and responses", maxLength: 200 });
  search.setAttribute("aria-label", "search prompts and responses");
  let waiting;
  search.oninput = () => { clearTimeout(waiting); waiting = setTimeout(() => request({ search: search.value, offset: 0 }), 250); };
  sort.setAttribute("aria-label", "order of prompts");
  sort.append(...state.header.sorts.map((name) => element("option", "", name)));
  sort.onchange = () => request({ sort: sort.value, offset: 0 });
  const back = element("button", "", "◀"), forward = element("button", "", "▶"), place = element("span");
  back.setAttribute("aria-label", "previous prompts");
  forward.setAttribute("aria-label", "next prompts");
  back.onclick = () => request({ offset: Math.max(0, state.frame.offset - state.frame.page) });
  forward.onclick = () => request({ offset: state.frame.offset + state.frame.page });
  const pin = labelled({ type: "checkbox" }, "follow these prompts", (input) =>
    request({ pinned: input.checked ? state.frame.groups.map((g) => g.key) : [], offset: 0 }));
  const marked = labelled({ type: "checkbox" }, "only responses with", (input) => request({ marked: input.checked, offset: 0 }));
  const what = element("span", "wb-marked-word");
  marked.append(what);
  node.append(search, sort, back, place, forward, pin, marked);
  return { node, update() {
    const { frame } = state, last = Math.min(frame.offset + frame.page, frame.matching_groups);
    place.textContent = frame.matching_groups ? `prompts ${frame.offset + 1}–${last} of ${frame.matching_groups}` : "none";
    back.disabled = frame.offset === 0;
    forward.disabled = last >= frame.matching_groups;
    const pinned = frame.request?.pinned ?? [];
    pin.firstChild.checked = pinned.length > 0;
    pin.title = pinned.length ? `${frame.pinned_steps.length} kept steps hold one of these ${pinned.length} prompts; the arrow keys go through them` : "the arrow keys then go to the next step with one of these prompts";
    if (document.activeElement !== search) search.value = frame.request?.search ?? "";
    sort.value = frame.request?.sort ?? state.header.sorts[0];
    marked.hidden = !frame.marked;
    marked.firstChild.checked = Boolean(frame.request?.marked);
    what.textContent = state.header.marks || "marked tokens";
  } };
}

function labelled(attributes, text, changed) {
  const label = element("label"), input = Object.assign(element("input"), attributes);
  input.onchange = () => changed(input);
  label.append(input, text);
  return label;
}

function groupNode(group, state, dark, act) {
  const node = element("section", "wb-group");
  node.append(element("h4", "", seen(group.prompt)));
  const line = element("p", "", `shown ${group.rollouts.length} of ${group.size} responses · mean reward ${show(group.mean, 2)}`);
  if (group.flat) line.append(" · ", element("span", "wb-flat", "zero variance: all rewards equal, no learning signal"));
  node.append(line, ...group.rollouts.map((rollout, i) => rolloutNode(rollout, i, state, dark, act)));
  return node;
}

function rolloutNode(rollout, position, state, dark, act) {
  const node = element("div", "wb-rollout");
  const mark = rollout.correct == null ? "" : rollout.correct ? "✓ correct · " : "✗ wrong · ";
  const advantage = rollout.advantage == null ? "" : ` · A ${signed(rollout.advantage)}`;
  const measures = element("div", "wb-measures");
  if (rollout.name) measures.append(element("b", "", seen(rollout.name)), element("br"));
  measures.append(`${mark}R ${show(rollout.reward, 2)}${advantage}`, element("br"));
  const cut = rollout.count && rollout.count < rollout.length ? `first ${rollout.count.toLocaleString("en")} of ` : "";
  const length = rollout.length ? `${cut}${rollout.length.toLocaleString("en")} tokens` : "length not recorded";
  measures.append(`${length}${rollout.finished ? "" : ", cut off"}`);
  const raw = state.raw || !rollout.count;
  const whole = state.whole.get(`${state.frame.step}/${rollout.row}`);
  const text = element(raw ? "pre" : "div", "wb-text", raw ? seen(whole ?? rollout.text) : null);
  if (!raw) for (let i = 0; i < rollout.count; i++) text.append(tokenNode(rollout, i, state, dark));
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `response ${position + 1}${mark ? `, ${mark.slice(2, -3)}` : ""}`);
  const body = element("div", "wb-body");
  body.append(text);
  const total = rollout.characters.toLocaleString("en"), held = [...rollout.text].length;
  if (raw && whole == null && rollout.characters > held) {
    body.append(act.ask ? button(`show all ${total} characters`, () => act.ask(rollout.row))
      : element("small", "", `first ${(held - 1).toLocaleString("en")} of ${total} characters`));
  }
  if (act.ask && !raw && cut) body.append(button("show more tokens", () => act.request({ limit: state.frame.limit * MORE })));
  node.append(measures, body);
  return node;
}

function button(text, clicked) {
  const node = element("button", "wb-more", text);
  node.onclick = clicked;
  return node;
}

function tokenNode(rollout, i, { frame, palette, mode: key }, dark) {
  const mode = palette[key], place = rollout.first + i, { columns } = frame;
  const piece = frame.pieces[columns.piece[place]], value = at(mode.column(columns), place);
  const node = element("span", "wb-token", seen(piece));
  node.wb = { piece, i, place };
  node.tabIndex = i === 0 ? 0 : -1;
  if (piece.includes("\n")) node.classList.add("wb-break");
  if (columns.mark?.[place]) node.classList.add("wb-mark");
  if (value != null) {
    const colour = mode.colour(value, dark);
    node.style.background = css(colour);
    node.style.color = ink(colour);
    if (mode.signed && value !== mode.centre) node.classList.add(value > mode.centre ? "wb-plus" : "wb-minus");
  }
  return node;
}

function describe({ piece, i, place }, { columns }) {
  const numbers = NUMBERS.filter(([key]) => columns[key]).map(([key, label, unit]) => {
    const value = at(columns[key], place);
    return `${label} ${show(value)}${value == null ? "" : unit}`;
  });
  if (columns.old_logp) numbers.splice(1, 0, `probability ${show(Math.exp(at(columns.old_logp, place)))}`);
  return `“${seen(piece)}” · position ${i} · ${numbers.join(" · ")}`;
}

// The likeliest tokens at a place, as far as stored, and the drawn one after them if it is none of them.
function alternatives({ piece, place }, { columns, pieces }) {
  const stored = Object.keys(columns).filter((name) => /^top\d+$/.test(name) && at(columns[`${name}_logp`], place) != null);
  if (!stored.length) return [];
  const items = stored.map((name) => [pieces[columns[name][place]], columns[`${name}_logp`][place]]).filter(([, logp]) => Number.isFinite(logp));
  const drawn = at(columns.rollout_logp, place);
  const isDrawn = ([text, logp]) => text === piece && (drawn == null || Math.abs(logp - drawn) < 1e-4);
  if (drawn != null && !items.some(isDrawn)) items.push([piece, drawn]);
  const line = element("div", "wb-tops", "likeliest here: ");
  line.append(...items.flatMap((item) => {
    const [text, logp] = item, share = Math.exp(logp);
    const node = element("span", "wb-top", `“${seen(text)}” ${percent(share)}${isDrawn(item) ? " ✓ drawn" : ""}`);
    node.style.setProperty("--share", `${100 * share}%`);
    return [node, " "];
  }));
  return [line];
}

const percent = (share) => share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;

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
    const view = createView(root, header, ({ step }) => view.show(frames.find((f) => f.step === step)));
    view.show(frames[0]);
  }
}

// anywidget: Python answers each request with a frame.
function render({ model, el }) {
  const load = (request) => { model.set("request", { ...request }); model.save_changes(); };
  const view = createView(el, model.get("header"), load, (row) => model.send({ whole: row }));
  const on = {
    "change:frame": () => view.show(model.get("frame"), model.get("frame").request),
    "change:header": () => view.head(model.get("header")),
    "change:whole": () => view.whole(model.get("whole")),
  };
  for (const [event, act] of Object.entries(on)) model.on(event, act);
  view.show(model.get("frame"), model.get("frame").request);
  return () => { view.stopListening(); for (const [event, act] of Object.entries(on)) model.off(event, act); };
}

export default { render };
