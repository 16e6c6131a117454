// The indicator, the list of alerts, and the orders: acknowledge, silence, end a silence.
import { by, el, moment } from "./dom.js";
import { forgetKey, hasKey, order, rememberKey } from "./door.js";

const AUTHOR = "ws-cluster-author";
const FORMS = { active: "for %", pending: "for %", resolved: "% ago" };
const COUNTED = ["critical", "warning", "info", "pending", "acknowledged", "silenced"];
let afterKey = null;
let canWrite = true;

// --- the indicator -------------------------------------------------------------------------

export function showAlerts(report) {
  const { level, counts, errors, alerts } = report;
  const words = COUNTED.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`);
  const text = level === "unknown" ? ["alerts unknown", ...words] : words.length ? words : ["no alerts"];
  by("indicator").className = `indicator ${level}`;
  by("indicator-text").textContent = text.join(" · ");
  const badge = counts.critical + counts.warning;
  document.title = badge ? `(${badge}) ws-cluster` : "ws-cluster";
  const wrong = Object.values(errors).map((error) => el("p", { className: "faint wrong" }, error));
  const held = document.activeElement?.dataset?.held;
  by("alert-list").replaceChildren(...wrong, ...(alerts.length ? alerts.map(card) : [el("p", { className: "empty" }, nothing(level))]));
  by("alerts-note").textContent = report.left_out ? `${report.left_out} more are not shown` : "";
  if (held) [...document.querySelectorAll("[data-held]")].find((e) => e.dataset.held === held)?.focus();
}

export function setWritable(isWritable) {
  canWrite = isWritable;
  by("key-button").hidden = !isWritable;
  by("read-only").hidden = isWritable;
}

export function loseAlerts() {
  by("indicator").className = "indicator unknown";
  by("indicator-text").textContent = "alerts unknown";
}

const nothing = (level) => (level === "unknown" ? "Nothing is known." : "Nothing is pending or active, and nothing was in the last 15 minutes.");

// --- the list ------------------------------------------------------------------------------

function card(alert) {
  const extra = Object.entries(alert.labels).filter(([name]) => !["alertname", "severity", "team"].includes(name));
  const isAcked = alert.silences.some((one) => one.is_ack);
  return el("article", { className: `alert ${alert.state} ${alert.severity}${alert.silences.length ? " silenced" : ""}` },
    el("div", { className: "when" }, el("strong", {}, alert.state), " ", moment(alert.since, FORMS[alert.state])),
    el("div", {},
      el("p", {}, el("strong", {}, alert.name), ` ${[alert.severity, alert.team].filter(Boolean).join(" · ")}`),
      el("p", {}, alert.summary),
      alert.description ? el("p", { className: "faint" }, alert.description) : null,
      extra.length ? el("p", { className: "faint" }, extra.map(([name, value]) => `${name}=${value}`).join("  ")) : null,
      ...alert.silences.map(silence)),
    el("div", { className: "act" }, runbook(alert.runbook),
      alert.state === "active" && !isAcked ? action(alert, "ack", "Acknowledge") : null,
      alert.state === "resolved" ? null : action(alert, "silence", "Silence")));
}

function runbook(address) {
  if (!address) return null;
  // An address of any other kind (javascript:, a path of the sources) is shown, not followed.
  if (!/^https?:\/\//i.test(address)) return el("span", { className: "faint" }, address);
  return el("a", { className: "button", href: address, target: "_blank", rel: "noopener noreferrer" }, "Runbook");
}

function silence(one) {
  const undo = el("button", { type: "button", className: "quiet" }, "End");
  undo.dataset.held = `end ${one.id}`;
  undo.addEventListener("click", () => withKey(() => order("unsilence", { id: one.id }).catch(fail)));
  return el("p", { className: "silence" }, `${one.is_ack ? "✔ acknowledged" : "🔕 silenced"} by ${one.author}: ${one.note} (`,
    moment(one.ends_at, "% left"), ") ", canWrite ? undo : "");
}

function action(alert, name, text) {
  if (!canWrite) return null;
  const button = el("button", { type: "button", className: name === "ack" ? "" : "quiet" }, text);
  button.dataset.held = `${name} ${JSON.stringify(alert.labels)}`;
  button.addEventListener("click", () => withKey(() => ask(alert, name, text)));
  return button;
}

// --- orders --------------------------------------------------------------------------------

function withKey(next) {
  if (hasKey()) return next();
  afterKey = next;
  by("key-error").hidden = true;
  return by("key").showModal();
}

function showKey() { by("key-button").textContent = hasKey() ? "Forget key" : "Enter key"; }

function fail(error) {
  by("alerts-note").textContent = error.message;
  if (error.status === 401) {
    forgetKey();
    showKey();
  }
}

function ask(alert, name, text) {
  by("order-title").textContent = `${text} ${alert.name}`;
  by("order-text").textContent = name === "ack"
    ? "Somebody is on it: this alert notifies nobody again until the time is over, and the note tells why."
    : "No notification until the time is over. The alert itself goes on.";
  by("order-go").textContent = text;
  by("order-note").value = "";
  by("order-author").value = localStorage.getItem(AUTHOR) ?? "";
  by("order-all").checked = false;
  by("order-all").parentElement.hidden = name === "ack";
  by("order-error").hidden = true;
  by("order").showModal();
  by("order").querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    send(alert, name);
  };
}

async function send(alert, name) {
  const author = by("order-author").value;
  const labels = by("order-all").checked ? { alertname: alert.labels.alertname } : alert.labels;
  localStorage.setItem(AUTHOR, author);
  by("order-go").disabled = true;
  try {
    await order(name, { labels, note: by("order-note").value, author, seconds: Number(by("order-seconds").value) });
    by("order").close();
    by("alerts-note").textContent = name === "ack" ? `${alert.name} is acknowledged` : `${alert.name} is silenced`;
  } catch (error) {
    by("order-error").textContent = error.message;
    by("order-error").hidden = false;
    fail(error);
  } finally {
    by("order-go").disabled = false;
  }
}

by("order-cancel").addEventListener("click", () => by("order").close());
by("key-cancel").addEventListener("click", () => by("key").close());
by("key-button").addEventListener("click", () => {
  if (!hasKey()) return withKey(() => {});
  forgetKey();
  return showKey();
});
by("key").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  rememberKey(by("key-value").value.trim());
  try {
    await order("key", {});
    by("key").close();
    by("key-value").value = "";
    afterKey?.();
  } catch (error) {
    forgetKey();
    by("key-error").textContent = error.message;
    by("key-error").hidden = false;
  }
  showKey();
});
showKey();
