"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const PRINT_WIDTH = 690; // pixels of an A4 page between its margins

function template(onPaper) {
  const [ink, rule] = dark.matches && !onPaper ? ["#c3cad2", "#39424c"] : ["#3d4650", "#dfe3e8"];
  const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: rule };
  const font = { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily };
  const clear = "rgba(0,0,0,0)";
  return { layout: { font, xaxis: axis, yaxis: axis, paper_bgcolor: clear, plot_bgcolor: clear } };
}

function draw(element) {
  const source = element.querySelector("script");
  const figure = JSON.parse(source.textContent);
  source.remove();
  Plotly.newPlot(element, figure.data, { ...figure.layout, template: template(false) },
    { responsive: true, displayModeBar: false });
}

const waiting = [...document.querySelectorAll(".chart")];

// One chart at a time, so that the page can be read and scrolled while the others are drawn.
function drawNext() {
  if (waiting.length) {
    draw(waiting.shift());
    setTimeout(drawNext);
  }
}

async function loadPlotly() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}
loadPlotly().then(drawNext);

function restyle(onPaper) {
  if (!window.Plotly) return;
  while (waiting.length) draw(waiting.shift());
  for (const element of document.querySelectorAll(".chart")) {
    const size = onPaper ? { width: PRINT_WIDTH, autosize: false } : { width: null, autosize: true };
    Plotly.relayout(element, { ...size, template: template(onPaper) });
  }
}
dark.addEventListener("change", () => restyle(false));
addEventListener("beforeprint", () => restyle(true));
addEventListener("afterprint", () => restyle(false));
