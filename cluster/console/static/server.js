// Requests to the server: one stream of events, and actions that carry the key.
const STORED = "ws-cluster-key";
const RETRY_MILLISECONDS = 2000;
const SILENCE_MILLISECONDS = 15000;

// The link of a development run ends in #key=…: it is stored and removed from the address bar.
function takeLinkedKey() {
  const linked = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!linked) return false;
  sessionStorage.setItem(STORED, linked);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}
takeLinkedKey();
addEventListener("hashchange", () => { if (takeLinkedKey()) location.reload(); });

export const hasKey = () => Boolean(sessionStorage.getItem(STORED));
export const forgetKey = () => sessionStorage.removeItem(STORED);
export const rememberKey = (key) => sessionStorage.setItem(STORED, key);

function headers(more = {}) {
  const key = sessionStorage.getItem(STORED);
  if (!key) return more;
  // A header is bytes: the key is encoded as UTF-8.
  return { ...more, Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}` };
}

async function sentence(response) {
  try {
    return (await response.json()).error || response.statusText;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

// Sends an action; throws an Error with a sentence as its message and the status of the answer.
export async function act(name, body) {
  const response = await fetch(`console/${name}`, {
    method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body),
  });
  if (!response.ok) throw Object.assign(new Error(await sentence(response)), { status: response.status });
  return response.json();
}

// Follows the events without end. EventSource cannot be used: it cannot carry a key.
export async function follow(on, lost) {
  for (;;) {
    try {
      await read(on);
      lost("The stream ended; trying again.");
    } catch (error) {
      lost(error.status ? error.message : "The server cannot be reached; trying again.");
    }
    await new Promise((wake) => setTimeout(wake, RETRY_MILLISECONDS));
  }
}

async function read(on) {
  const control = new AbortController();
  let timer = setTimeout(() => control.abort(), SILENCE_MILLISECONDS);
  const response = await fetch("console/events", { headers: headers(), signal: control.signal, cache: "no-store" });
  try {
    if (!response.ok) throw Object.assign(new Error(await sentence(response)), { status: response.status });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(), SILENCE_MILLISECONDS);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      events.forEach((event) => deliver(event, on));
    }
  } finally {
    clearTimeout(timer);
  }
}

function deliver(event, on) {
  const [kind, data] = event.split("\n").map((line) => line.slice(line.indexOf(":") + 2));
  on[kind]?.(JSON.parse(data));
}
