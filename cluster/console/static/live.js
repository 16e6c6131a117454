// The live client: one connection subscribes, another publishes.
import { Client } from "./centrifuge.js";
import { by, el } from "./dom.js";

const AWAY_MILLISECONDS = 3000;
const MOST_LINES = 200;
const STATES = { connected: "good", connecting: "warn", disconnected: "" };

let reader = null;
let writer = null;
let address = null;

export function showLive(hello) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  address = `${scheme}://${hello.live_address || location.host}/connection/websocket`;
  by("live-where").textContent = address;
  by("live-token-label").hidden = hello.is_insecure;
}

function write(text, kind = "") {
  const log = by("live-log");
  log.append(el("li", { className: kind }, `${new Date().toLocaleTimeString("en-GB")}  ${text}`));
  while (log.children.length > MOST_LINES) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}

function showState(state) {
  by("live-state").textContent = state === "disconnected" ? "not connected" : state;
  by("live-state").className = `pill ${STATES[state]}`;
  by("live-drop").disabled = state !== "connected";
  by("live-end").disabled = state === "disconnected";
}

function end() {
  reader?.disconnect();
  writer?.disconnect();
  by("live-publish").querySelector("button").disabled = true;
}

function start(event) {
  event.preventDefault();
  if (!address) return;
  end();
  const [channel, token] = [by("live-channel").value.trim(), by("live-token").value.trim()];
  reader = new Client(address, token);
  writer = new Client(address, token);
  let hasConnected = false;
  reader.addEventListener("state", ({ detail }) => {
    hasConnected ||= detail === "connected";
    showState(detail);
  });
  reader.addEventListener("log", ({ detail }) => {
    write(detail.text, detail.kind);
    if (detail.kind === "lost" && !hasConnected) write(`if this goes on: client.allowed_origins must name ${location.origin}`, "lost");
  });
  reader.addEventListener("publication", ({ detail }) => {
    const text = typeof detail.data === "string" ? detail.data : JSON.stringify(detail.data);
    const offset = detail.offset ? ` #${detail.offset}` : "";
    write(`${detail.isRecovered ? "recovered " : ""}${detail.channel}${offset}: ${text}`, detail.isRecovered ? "recovered" : "");
  });
  writer.addEventListener("state", ({ detail }) => {
    by("live-publish").querySelector("button").disabled = detail !== "connected";
  });
  reader.subscribe(channel);
  reader.connect();
  writer.connect();
}

async function publish(event) {
  event.preventDefault();
  try {
    await writer.publish(by("live-channel").value.trim(), by("live-message").value);
  } catch (error) {
    write(`publish failed: ${error.message}`, "lost");
  }
}

by("live-connect").addEventListener("submit", start);
by("live-publish").addEventListener("submit", publish);
by("live-end").addEventListener("click", () => { end(); write("disconnected"); });
by("live-drop").addEventListener("click", () => {
  write(`dropped the connection, away for ${AWAY_MILLISECONDS / 1000} s`, "lost");
  reader.drop(AWAY_MILLISECONDS);
});
