// The indicator, the list of alerts, and the actions: acknowledge, silence, end a silence.
import { by, el, moment } from "./dom.js";
import { act, forgetKey, hasKey, rememberKey } from "./server.js";

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
  const focused = document.activeElement?.dataset?.focus;
  by("alert-list").replaceChildren(...wrong, ...(alerts.length ? alerts.map(card) : [el("p", { className: "empty" }, nothing(level))]));
  by("alerts-note").textContent = report.left_out ? `${report.left_out} more are not shown` : "";
  if (focused) [...document.querySelectorAll("[data-focus]")].find((e) => e.dataset.focus === focused)?.focus();
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

const nothing = (level) => (level === "unknown" ? "The state of the alerts is not known." : "No alert is pending or active, and none was active in the last 15 minutes.");

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
      alert.state === "active" && !isAcked ? actionButton(alert, "ack", "Acknowledge") : null,
      alert.state === "resolved" ? null : actionButton(alert, "silence", "Silence")));
}

function runbook(address) {
  if (!address) return null;
  // Any other address (javascript:, a path in the sources) is shown as text, not as a link.
  if (!/^https?:\/\//i.test(address)) return el("span", { className: "faint" }, address);
  return el("a", { className: "button", href: address, target: "_blank", rel: "noopener noreferrer" }, "Runbook");
}

function silence(one) {
  const undo = el("button", { type: "button", className: "quiet" }, "End");
  undo.dataset.focus = `end ${one.id}`;
  undo.addEventListener("click", () => withKey(() => act("unsilence", { id: one.id }).catch(fail)));
  return el("p", { className: "silence" }, `${one.is_ack ? "✔ acknowledged" : "🔕 silenced"} by ${one.author}: ${one.note} (`,
    moment(one.ends_at, "% left"), ") ", canWrite ? undo : "");
}

function actionButton(alert, name, text) {
  if (!canWrite) return null;
  const button = el("button", { type: "button", className: name === "ack" ? "" : "quiet" }, text);
  button.dataset.focus = `${name} ${JSON.stringify(alert.labels)}`;
  button.addEventListener("click", () => withKey(() => openDialog(alert, name, text)));
  return button;
}

// --- actions -------------------------------------------------------------------------------

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

function openDialog(alert, name, text) {
  by("action-title").textContent = `${text} ${alert.name}`;
  by("action-text").textContent = name === "ack"
    ? "You work on it: this alert sends no more notifications until the time is over. The note says why."
    : "No notifications until the time is over. The alert itself stays active.";
  by("action-go").textContent = text;
  by("action-note").value = "";
  by("action-author").value = localStorage.getItem(AUTHOR) ?? "";
  by("action-all").checked = false;
  by("action-all").parentElement.hidden = name === "ack";
  by("action-error").hidden = true;
  by("action").showModal();
  by("action").querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    send(alert, name);
  };
}

async function send(alert, name) {
  const author = by("action-author").value;
  const labels = by("action-all").checked ? { alertname: alert.labels.alertname } : alert.labels;
  localStorage.setItem(AUTHOR, author);
  by("action-go").disabled = true;
  try {
    await act(name, { labels, note: by("action-note").value, author, seconds: Number(by("action-seconds").value) });
    by("action").close();
    by("alerts-note").textContent = name === "ack" ? `${alert.name} is acknowledged` : `${alert.name} is silenced`;
  } catch (error) {
    by("action-error").textContent = error.message;
    by("action-error").hidden = false;
    fail(error);
  } finally {
    by("action-go").disabled = false;
  }
}

by("action-cancel").addEventListener("click", () => by("action").close());
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
    await act("key", {});
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
