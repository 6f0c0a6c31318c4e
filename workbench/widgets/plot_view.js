// A plotly figure that Python redraws as a whole. plotly.js travels once per page, when the first figure asks for it.
const SHARED = "__workbenchPlotly";

function plotly(model) {
  globalThis[SHARED] ??= new Promise((resolve, reject) => {
    if (globalThis.Plotly?.react) return resolve(globalThis.Plotly);
    const take = (message, buffers) => {
      if (message.give !== "plotly") return;
      model.off("msg:custom", take);
      const script = document.createElement("script");
      script.src = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
      script.onload = () => resolve(globalThis.Plotly);
      script.onerror = () => { delete globalThis[SHARED]; reject(new Error("plotly.js did not load")); };
      document.head.append(script);
    };
    model.on("msg:custom", take);
    model.send({ need: "plotly" });
  });
  return globalThis[SHARED];
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

  async function draw() {
    const Plotly = await plotly(model);
    if (gone) return;
    const { data, layout } = model.get("content");
    box.setAttribute("aria-label", layout.meta?.summary ?? "figure");
    box.style.minHeight = `${layout.height ?? 400}px`;
    await Plotly.react(box, data, themed(structuredClone(layout)), { responsive: true, displaylogo: false });
    model.send({ drawn: model.get("content").version });
    if (listening) return;
    listening = true;
    box.on("plotly_click", ({ points: [point] }) => model.send({ click: { curve: point.curveNumber, place: point.pointNumber ?? 0 } }));
    box.on("plotly_selected", (event) => { if (event?.range) model.send({ brush: event.range }); });
  }

  const theme = new MutationObserver(draw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => { if (listening && box.offsetWidth) globalThis.Plotly?.Plots.resize(box); });
  size.observe(el);
  model.on("change:content", draw);
  draw();
  return () => {
    gone = true;
    theme.disconnect();
    size.disconnect();
    model.off("change:content", draw);
    globalThis.Plotly?.purge(box);
  };
}

export default { render };
