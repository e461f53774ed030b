// The two charts of the training page. Without this file the page shows the same figures as drawings made by the server.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const read = (id) => { const element = document.getElementById(id); return element && JSON.parse(element.textContent); };

function axes(x, y) {
  const common = () => ({ stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" });
  return [{ ...common(), ...x }, { ...common(), ...y, size: 56 }];
}

function draw(holder, options, data) {
  holder.replaceChildren();
  const chart = new uPlot({ width: holder.clientWidth, height: Math.min(340, Math.max(240, holder.clientWidth / 2)), ...options }, data, holder);
  const resize = new ResizeObserver(() => { if (holder.clientWidth !== chart.width) chart.setSize({ width: holder.clientWidth, height: chart.height }); });
  resize.observe(holder);
  return { remove() { resize.disconnect(); chart.destroy(); }, chart };
}

// Loss: one line per kind of cycle, and a mark where a full training began anew.
function drawLoss(data) {
  const marks = (chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("--chart-full");
    ctx.globalAlpha = 0.55;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const at of data.restarts) {
      const x = Math.round(chart.valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    }
    ctx.restore();
  };
  const line = (label, name) => ({ label, stroke: colour(name), width: 1.5, spanGaps: false, points: { show: false }, value: (_, value) => (value == null ? "–" : value.toFixed(4)) });
  return draw(document.getElementById("loss-chart"), {
    scales: { x: { time: false } },
    axes: axes({ label: "mini-batch", labelSize: 22, size: 44 }, {}),
    series: [{ label: "mini-batch" }, line("full", "--chart-full"), line("incremental", "--chart-more")],
    hooks: { draw: [marks] },
  }, [data.batch, data.full, data.incremental]);
}

// Scores: every item of the pool by age; the line is the threshold.
function drawScores(data) {
  const slider = document.getElementById("threshold");
  const dots = (name, size, alpha) => (chart, series) => {
    const { ctx } = chart;
    const xs = chart.data[0], ys = chart.data[series];
    ctx.save();
    ctx.fillStyle = colour(name);
    ctx.globalAlpha = alpha;
    for (let i = 0; i < xs.length; i++) {
      if (ys[i] == null) continue;
      ctx.beginPath();
      ctx.arc(chart.valToPos(xs[i], "x", true), chart.valToPos(ys[i], "y", true), size * devicePixelRatio, 0, 7);
      ctx.fill();
    }
    ctx.restore();
    return null;
  };
  const threshold = (chart) => {
    const { ctx, bbox } = chart;
    const y = chart.valToPos(Number(slider.value), "y", true);
    ctx.save();
    ctx.strokeStyle = colour("--accent");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath(); ctx.moveTo(bbox.left, y); ctx.lineTo(bbox.left + bbox.width, y); ctx.stroke();
    ctx.restore();
  };
  const value = (_, v) => (v == null ? "–" : v.toFixed(3));
  const drawn = draw(document.getElementById("score-chart"), {
    scales: { x: { time: false, dir: -1 }, y: { range: [0, 1] } },
    axes: axes({ label: "age in days", labelSize: 22, size: 44 }, {}),
    series: [
      { label: "age, days" },
      { label: "score", stroke: colour("--chart-more"), paths: dots("--chart-more", 2, 0.5), points: { show: false }, value },
      { label: "served now", stroke: colour("--chart-full"), paths: dots("--chart-full", 3.5, 1), points: { show: false }, value },
    ],
    hooks: { draw: [threshold] },
  }, [data.age, data.score, data.served]);
  const update = () => {
    document.getElementById("threshold-value").textContent = Number(slider.value).toFixed(2);
    document.getElementById("above").textContent = data.above[Math.round(100 * slider.value)].toLocaleString("en");
    drawn.chart.redraw();
  };
  slider.addEventListener("input", update);
  return { remove() { slider.removeEventListener("input", update); drawn.remove(); } };
}

const pictures = [];
function drawAll() {
  for (const picture of pictures.splice(0)) picture.remove();
  const loss = read("loss-data");
  const scores = read("score-data");
  if (loss) pictures.push(drawLoss(loss));
  if (scores) pictures.push(drawScores(scores));
}
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
