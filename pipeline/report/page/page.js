
// Draws the charts of the page's data with Chart.js. Data are shown as text only, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const tidy = (value) => Number(value.toPrecision(12));

  // ---- values as text

  function numberText(value) {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(1).replace(".0e", "e");
    return String(Number(value.toPrecision(4)));
  }
  function powerText(value) {  // of ten
    const power = Math.round(Math.log10(value));
    return power === 0 ? "1" : `10${String(power).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])}`;
  }
  const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB"];
  function bytesText(value) {
    let power = 0;
    while (value >= 1024 && power < byteUnits.length - 1) { value /= 1024; ++power; }
    return `${numberText(Number(value.toPrecision(3)))} ${byteUnits[power]}`;
  }
  // The largest unit within the bytes: one for all ticks of an axis.
  function byteUnit(bytes) {
    const power = Math.min(byteUnits.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
    return { name: byteUnits[power], size: 1024 ** power };
  }
  function tokensText(value) {
    if (value >= 1 << 20) return `${numberText(value / (1 << 20))}M`;
    return value >= 1024 ? `${numberText(value / 1024)}K` : numberText(value);
  }
  const shareText = (value) => `${Number((100 * value).toPrecision(3))} %`;
  const texts = { number: numberText, count: numberText, share: shareText, tokens: tokensText, bytes: bytesText };

  // ---- axes: bounds and the ticks between them, all round in the axis's unit

  function roundStep(range, most) {
    const power = 10 ** Math.floor(Math.log10(range / most));
    return [1, 2, 5, 10].map((digit) => digit * power).find((step) => range / step <= most * 1.0001);
  }
  function steps(low, high, step) {
    const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
    const ticks = [];
    for (let i = first; i <= Math.max(last, first + 1); ++i) ticks.push(tidy(i * step));
    return ticks;
  }
  function linearTicks(low, high, unit) {
    if (low > 0 && low < 0.6 * high) low = 0;
    if (low === high) { low = Math.min(low, 0); high = high > 0 ? high : low + 1; }
    if (unit === "share" && low >= 0 && high <= 1) return steps(0, high > 0.5 ? 1 : high, high > 0.5 ? 0.2 : roundStep(high, 5));
    if (unit === "tokens") return steps(0, high, 2 ** Math.ceil(Math.log2(Math.max(high / 6, 1))));
    if (unit === "count") return steps(low, high, Math.max(1, roundStep(high - low, 8)));
    if (unit === "bytes") return steps(0, high, roundStep(high / byteUnit(high).size, 5) * byteUnit(high).size);
    return steps(low, high, roundStep(high - low, 5));
  }
  function logTicks(low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low) - 1); power <= Math.ceil(Math.log10(high)) + 1; ++power) {
      for (const digit of [1, 2, 5]) ticks.push(Number(`${digit}e${power}`));
    }
    const first = ticks.findLastIndex((tick) => tick <= low * (1 + 1e-9));
    const last = ticks.findIndex((tick) => tick >= high * (1 - 1e-9));
    const within = ticks.slice(first, Math.max(last, first + 1) + 1);
    const decades = Math.log10(within.at(-1) / within[0]);
    if (decades <= 2.5) return { ticks: within, low: within[0], high: within.at(-1) };
    const every = Math.ceil(decades / 7);
    const tens = within.filter((tick) => {
      const power = Math.log10(tick);
      return Math.abs(power - Math.round(power)) < 1e-9 && Math.round(power) % every === 0;
    });
    return { ticks: tens, low: within[0], high: within.at(-1), text: tens[0] < 1e-4 ? powerText : undefined };
  }
  function halvingTicks(low, high) {
    // The numbers of halvings of the ticks within, or, if these are less than two, around.
    let first = Math.floor(Math.log2(1 / low) + 1e-3), last = Math.ceil(Math.log2(1 / high) - 1e-3);
    if (first - last < 1) { first = Math.max(first, last); last = first - 1; }
    const every = Math.ceil((first - last + 1) / 7);
    const ticks = [];
    for (let halvings = first; halvings >= last; --halvings) {
      if (halvings % every === 0) ticks.push(1 / 2 ** halvings);
    }
    return { ticks, low: 0.93 * Math.min(low, ticks[0]), high: 1.07 * Math.max(high, ticks.at(-1)) };
  }
  function axisOf(axis, values, bars) {
    const low = Math.min(...values), high = Math.max(...values);
    let found;
    if (axis.scale === "log") {
      found = logTicks(low, high);
    } else if (axis.scale === "halvings") {
      found = halvingTicks(low, high);
    } else {
      const ticks = linearTicks(low, high, axis.unit);
      found = { ticks, low: ticks[0], high: ticks.at(-1) };
      if (axis.unit === "count") { found.low = low; found.high = high; }
      if (bars) { found.low = low - 0.5; found.high = high + 0.5; }
      if (axis.unit === "bytes") {
        const unit = byteUnit(high);
        found.text = (value) => `${numberText(value / unit.size)} ${unit.name}`;
      }
      found.ticks = ticks.filter((tick) => tick >= found.low && tick <= found.high);
    }
    return {
      type: axis.scale === "linear" ? "linear" : "logarithmic",
      min: found.low, max: found.high,
      offset: false,
      grid: { color: colour("--line"), borderColor: colour("--muted") },
      title: { display: true, text: axis.label, color: colour("--muted") },
      afterBuildTicks: (scale) => { scale.ticks = found.ticks.map((value) => ({ value })); },
      ticks: { color: colour("--muted"), autoSkip: false, maxRotation: 0,
               callback: found.text || ((value) => texts[axis.unit](value)) },
    };
  }

  // ---- charts

  const numColours = 8;
  const shapes = ["circle", "rect", "triangle", "rectRot"];

  function datasetsOf(chart) {
    const groups = [...new Set(chart.series.map((one) => one.group))].filter((group) => group !== "full");
    return chart.series.map((one, i) => {
      const at = groups.indexOf(one.group);
      const edge = chart.filled && i !== 1;
      const shade = colour(at < 0 ? "--muted" : `--s${(chart.filled ? 0 : at) % numColours}`);
      const last = chart.filled && i === chart.series.length - 1;
      return {
        label: one.name, data: one.points.map(([x, y]) => ({ x, y })),
        borderColor: shade, backgroundColor: edge ? `${shade}33` : shade,
        pointBackgroundColor: one.run > 0 ? colour("--page") : shade,
        borderDash: one.run > 0 ? [6, 4] : [], borderWidth: edge ? 0 : chart.bars ? 0 : 2, tension: 0,
        pointStyle: shapes[(Math.floor(Math.max(at, 0) / numColours) + (one.run > 0 ? 3 : 0)) % shapes.length],
        pointRadius: chart.markers || one.points.length === 1 ? 4 : 0, pointHoverRadius: 6, pointHitRadius: 8,
        fill: last ? { target: 0 } : false, clip: 8,
      };
    });
  }
  // Names that do not fit are cut; the tooltip has them whole.
  function legendLabels(chart) {
    const most = Math.max(12, Math.floor(chart.width / 7.5) - 4);  // characters
    return Chart.defaults.plugins.legend.labels.generateLabels(chart).map((label) => ({
      ...label, text: label.text.length > most ? `${label.text.slice(0, most - 1)}\u2026` : label.text,
      fontColor: colour("--text"),
    }));
  }
  function draw(chart, index) {
    const values = (at) => chart.series.flatMap((one) => one.points.map((point) => point[at]));
    return new Chart(document.getElementById(`chart-${index}`), {
      type: chart.bars ? "bar" : "line",
      data: { datasets: datasetsOf(chart) },
      options: {
        color: colour("--text"), animation: false, responsive: true, maintainAspectRatio: false, parsing: false,
        interaction: { mode: "nearest", axis: chart.bars ? "x" : "xy", intersect: false },
        scales: {
          x: axisOf(chart.x, values(0), chart.bars),
          y: axisOf(chart.y, chart.bars ? [0, ...values(1)] : values(1), false),
        },
        plugins: {
          legend: { display: chart.series.length > 1, position: "bottom", align: "start",
                    labels: { color: colour("--text"), usePointStyle: true, boxHeight: 7, boxWidth: 10, padding: 12,
                              generateLabels: legendLabels } },
          tooltip: { callbacks: {
            title: (items) => items.length ? `${chart.x.label}: ${texts[chart.x.unit](items[0].parsed.x)}` : "",
            label: (item) => `${item.dataset.label}: ${texts[chart.y.unit](item.parsed.y)}`,
          } },
        },
      },
    });
  }

  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  let charts = data.charts.map(draw);
  function drawAgain() {  // in the colours and the size of now
    charts.forEach((chart) => chart.destroy());
    charts = data.charts.map(draw);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);

  // Paper is light, and has nothing to open.
  let folded = [];
  addEventListener("beforeprint", () => {
    root.dataset.print = "";
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => { one.open = true; });
    drawAgain();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.print;
    folded.forEach((one) => { one.open = false; });
    drawAgain();
  });

  // A heat map's cell under the pointer, written below the map.
  document.querySelectorAll("figure.heat").forEach((figure) => {
    const output = figure.querySelector("output");
    figure.addEventListener("mouseover", (event) => { output.textContent = event.target.title || ""; });
  });
  document.querySelectorAll("td").forEach((cell) => {
    if (cell.textContent === "FAILED") cell.className = "failed";
  });
  const day = new Date(document.lastModified);
  const two = (value) => String(value).padStart(2, "0");
  document.getElementById("written").textContent =
    `, written ${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
})();
