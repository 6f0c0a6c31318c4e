// A plotly figure that Python redraws as a whole. plotly.js travels once per page, when the first figure asks for it.
const SHARED = "__workbenchPlotly";

function load(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => { delete globalThis[SHARED]; reject(new Error("plotly.js did not load")); };
    document.head.append(script);
  });
}

function plotly(model) {
  if (globalThis.Plotly?.react) return Promise.resolve(globalThis.Plotly);
  globalThis[SHARED] ??= new Promise((resolve, reject) => {
    const take = (message, buffers) => {
      if (message.give !== "plotly") return;
      model.off("msg:custom", take);
      load(buffers[0]).then(resolve, reject);
    };
    model.on("msg:custom", take);
    model.send({ need: "plotly" });
  });
  return globalThis[SHARED];
}

// A widget that brings plotly.js with it, before any figure is there to ask for it.
function initialize({ model }) {
  const source = model.get("source");
  if (source?.byteLength && !globalThis.Plotly?.react) globalThis[SHARED] ??= load(source);
}

const colour = (name, fallback) => getComputedStyle(document.body).getPropertyValue(name).trim() || fallback;

function themed(layout) {
  const text = colour("--jp-ui-font-color1", "#444"), panel = colour("--jp-layout-color1", "#fff");
  const size = layout.font ?? {};
  return { ...layout, font: { ...size, color: text }, hoverlabel: { ...layout.hoverlabel, bgcolor: panel, font: { ...layout.hoverlabel?.font, color: text } } };
}

function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "wb-plot-live";
  box.setAttribute("role", "img");
  el.append(box);
  let listening = false, gone = false;

  const shapes = () => [...(model.get("content").layout.shapes ?? []), ...model.get("shapes")];

  async function draw() {
    const Plotly = await plotly(model);
    if (gone) return;
    const { data, layout } = model.get("content");
    box.setAttribute("aria-label", layout.meta?.summary ?? "figure");
    box.style.minHeight = `${layout.height ?? 400}px`;
    await Plotly.react(box, data, themed(structuredClone({ ...layout, shapes: shapes() })), { responsive: true, displaylogo: false });
    model.send({ drawn: model.get("content").version });
    if (listening) return;
    listening = true;
    box.on("plotly_click", ({ points: [point] }) => model.send({ click: { curve: point.curveNumber, place: point.pointNumber ?? 0 } }));
    box.on("plotly_selected", (event) => { if (event?.range) model.send({ brush: event.range }); });
  }

  const mark = () => listening && globalThis.Plotly.relayout(box, { shapes: shapes() });
  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => { if (listening && box.offsetWidth) globalThis.Plotly?.Plots.resize(box); });
  size.observe(el);
  model.on("change:content", draw);
  model.on("change:shapes", mark);
  draw();
  return () => {
    gone = true;
    theme.disconnect();
    size.disconnect();
    model.off("change:content", draw);
    model.off("change:shapes", mark);
    globalThis.Plotly?.purge(box);
  };
}

export default { initialize, render };
