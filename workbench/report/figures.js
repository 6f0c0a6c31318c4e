// Paints every figure of the page with the page's own text colour, and again when the colour scheme changes.
const paint = () => {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--wb-text").trim(), grid = style.getPropertyValue("--wb-grid").trim();
  const panel = style.getPropertyValue("--wb-panel").trim();
  for (const box of document.querySelectorAll(".wb-plot")) {
    const { data, layout } = JSON.parse(box.nextElementSibling.textContent);
    layout.font = { ...layout.font, color: text };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: panel, font: { ...layout.hoverlabel?.font, color: text } };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) Object.assign(layout[key], { gridcolor: grid, linecolor: grid });
    }
    Plotly.react(box, data, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
  }
};
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
