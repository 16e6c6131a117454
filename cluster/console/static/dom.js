// Elements and texts. Strings become text nodes, never markup: texts of alerts are not trusted.
const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

export function el(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The last values as a line over an area that begins at zero.
export function sparkline(values, label) {
  const [width, height] = [120, 30];
  const top = Math.max(...values, 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(height - (v / top) * (height - 2)).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { class: "area", d: line && `${line}L${width},${height}L0,${height}Z` }),
    svg("path", { class: "line", d: line }));
}

// Parts of a whole side by side; widths are shares of `most`.
export function stack(parts, most, label) {
  let x = 0;
  const chart = svg("svg", { class: "phases", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const { share, style, title } of parts) {
    const width = most > 0 ? (share / most) * 100 : 0;
    chart.append(svg("rect", { class: style, x, y: 0, width, height: 8 }, svg("title", {}, title)));
    x += width;
  }
  return chart;
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const EXACT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
export const number = (value) => (Math.abs(value) < 1e5 ? EXACT : COMPACT).format(value);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${value.toFixed(value < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// A point in time that `refreshTimes` keeps up to date: "for 3 min", "5 s ago".
export function moment(at, form) {
  const date = new Date(at * 1000);
  const element = el("time", { dateTime: date.toISOString(), title: date.toLocaleString() });
  element.dataset.at = at;
  element.dataset.form = form;
  showTime(element);
  return element;
}

function showTime(element) {
  const away = Math.abs(Date.now() / 1000 - element.dataset.at);
  element.textContent = element.dataset.form.replace("%", duration(away));
}

export function refreshTimes() {
  document.querySelectorAll("time[data-at]").forEach(showTime);
}
