// The page: shows what the server sends once a second.
import { loseAlerts, setWritable, showAlerts } from "./alerts.js";
import { by, bytes, duration, el, moment, number, refreshTimes, sparkline, stack } from "./dom.js";
import { follow } from "./server.js";
import { showLive } from "./live.js";

const MOST_POINTS = 120;
const PHASES = ["clients", "broker", "sessions", "exit"];
const STATES = { ready: "good", starting: "warn", draining: "warn", not_ready: "alarm", failed: "alarm", exited: "alarm", away: "alarm" };
const TILES = [
  ["connections", "connections", (n) => `${number(n.opened_per_second)} new/s · capacity ${number(n.capacity)}`],
  ["sessions", "sessions", (n) => `subscriptions: ${number(n.subscriptions)}`],
  ["messages_out_per_second", "messages/s out", (n) => `${number(n.publications_per_second)} publications/s`],
  ["messages_in_per_second", "messages/s in", () => "commands of clients"],
  ["errors_last_minute", "errors/min", (n) => `${number(n.client_errors_last_minute)} by clients`],
];
let past = [];

function showHello(hello) {
  const shown = by("version").textContent;
  // Another version of the server has another version of this page.
  if (shown && shown !== hello.version) location.reload();
  past = hello.past;
  by("version").textContent = hello.version;
  for (const [name, address] of Object.entries(hello.links)) link(by(`link-${name}`), address);
  showLive(hello);
  setWritable(hello.can_write);
}

// A loopback address is the server's: a browser on another machine uses the name of the server.
function link(anchor, address) {
  anchor.hidden = !/^https?:\/\//i.test(address);
  if (anchor.hidden) return;
  const url = new URL(address);
  if (["localhost", "127.0.0.1", "[::1]"].includes(url.hostname)) url.hostname = location.hostname;
  anchor.href = url.href;
}

function showNumbers(now) {
  past = [...past, now].slice(-MOST_POINTS);
  const isWell = now.ready;
  by("state").textContent = isWell ? `ready · up ${duration(now.up_seconds)}` : `not ready: ${now.reason}`;
  by("state").className = `pill ${isWell ? "good" : "alarm"}`;
  by("numbers").replaceChildren(...TILES.map((tile) => showTile(tile, now)), memoryTile(now));
  by("workers").tBodies[0].replaceChildren(...workers(now.workers));
  by("ended").tBodies[0].replaceChildren(...endings(now.ended));
  refreshTimes();
}

function showTile([name, label, more], now) {
  const values = past.map((point) => point[name] ?? 0);
  const isBad = name === "errors_last_minute" && now[name] > 0;
  return el("div", { className: `tile${isBad ? " bad" : ""}`, id: `tile-${name}` },
    el("div", { className: "label" }, label), el("div", { className: "value" }, number(now[name])),
    el("div", { className: "more" }, more(now)), sparkline(values, `${label}, the last ${values.length} seconds`));
}

function memoryTile(now) {
  const share = now.memory_limit_bytes ? now.memory_bytes / now.memory_limit_bytes : 0;
  return el("div", { className: "tile", id: "tile-memory" }, el("div", { className: "label" }, "memory in use"),
    el("div", { className: "value" }, `${Math.round(share * 100)} %`),
    el("div", { className: "more" }, `${bytes(now.memory_bytes)} of ${bytes(now.memory_limit_bytes)}`), bar(share, share > 0.85));
}

function bar(share, isHot = false) {
  const inner = el("i", { className: isHot ? "hot" : "" });
  inner.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return el("div", { className: "bar" }, inner);
}

const meter = (text, share, isHot) => el("td", {}, el("div", { className: "meter" }, el("span", {}, text), bar(share, isHot)));

function workers(rows) {
  const most = (name) => Math.max(...rows.map((row) => row[name] ?? 0), 1);
  const [connections, memory] = [most("connections"), most("resident_bytes")];
  balance(rows.filter((row) => row.state === "ready").map((row) => row.connections));
  return rows.map((row) => el("tr", {}, el("td", {}, row.lane),
    el("td", {}, el("span", { className: `pill ${STATES[row.state] ?? ""}`, title: row.reason }, row.state)),
    meter(number(row.connections), row.connections / connections),
    meter(row.cpu == null ? "–" : `${Math.round(row.cpu * 100)} %`, row.cpu ?? 0, row.cpu > 0.9),
    meter(row.resident_bytes ? bytes(row.resident_bytes) : "–", (row.resident_bytes ?? 0) / memory),
    el("td", { className: "n optional" }, row.open_fds == null ? "–" : number(row.open_fds)),
    el("td", { className: "n optional" }, duration(row.up_seconds))));
}

// How far the fullest worker is above the mean; not shown for fewer than ten connections a worker.
function balance(counts) {
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  const over = mean > 0 ? Math.round((Math.max(...counts) / mean - 1) * 100) : 0;
  const how = over ? ` · the fullest holds ${over} % more than the mean` : " · evenly loaded";
  by("balance").textContent = `${counts.length} ready${counts.length > 1 && mean >= 10 ? how : ""}`;
}

function endings(rows) {
  if (!rows.length) return [el("tr", {}, el("td", { colSpan: 5, className: "empty" }, "No worker has ended since this cluster was started."))];
  const most = Math.max(...rows.map((row) => row.seconds ?? 0));
  return rows.map((row) => {
    const parts = PHASES.filter((name) => row.phases[name] > 0)
      .map((name) => ({ share: row.phases[name], style: `p${PHASES.indexOf(name)}`, title: `${name} ${row.phases[name].toFixed(2)} s` }));
    const text = parts.map((part) => part.title).join(", ");
    return el("tr", {}, el("td", {}, row.at ? moment(row.at, "% ago") : "earlier run"), el("td", {}, row.lane || "–"),
      el("td", {}, el("span", { className: `pill ${row.outcome === "clean" ? "good" : "alarm"}` }, row.outcome)),
      el("td", { className: "n" }, row.seconds == null ? "–" : `${row.seconds.toFixed(2)} s`),
      el("td", {}, parts.length ? stack(parts, most, text) : "–"));
  });
}

function legend() {
  by("phases").replaceChildren(...PHASES.map((name, i) => el("span", { className: `p${i}` }, `■ ${name}`)));
}

function showStream(text, isLost) {
  by("stream-state").textContent = text;
  by("notice").hidden = !isLost;
  by("notice").textContent = text;
}

legend();
follow({
  hello: (hello) => { showHello(hello); showStream("live", false); },
  numbers: showNumbers,
  alerts: showAlerts,
}, (why) => {
  showStream(why, true);
  by("state").className = "pill";
  by("state").textContent = "unknown";
  loseAlerts();
});
