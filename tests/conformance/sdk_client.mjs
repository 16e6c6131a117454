// The npm SDK under remote control: one JSON command per line in, answers and events out.
//
// In:  {"id": 1, "do": "publish", "client": "ann", "channel": "news", "data": 5}
// Out: {"id": 1, "ok": {...}} or {"id": 1, "error": {"code": 108, "message": "..."}}
//      {"event": "publication", "client": "ann", "channel": "news", ...} whenever the SDK says so
// Ends with its standard input.

import readline from "node:readline";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const clients = new Map();

function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

function watchClient(name, client) {
  const tell = (event, facts) => say({ event, client: name, ...facts });
  client.on("connecting", (ctx) => tell("connecting", { code: ctx.code, reason: ctx.reason }));
  client.on("connected", (ctx) => tell("connected", { id: ctx.client, data: ctx.data ?? null }));
  client.on("disconnected", (ctx) => tell("disconnected", { code: ctx.code, reason: ctx.reason }));
  client.on("message", (ctx) => tell("message", { data: ctx.data }));
  client.on("error", (ctx) => tell("error", { code: ctx.error.code, message: ctx.error.message }));
}

function watchSubscription(name, channel, sub) {
  const tell = (event, facts) => say({ event, client: name, channel, ...facts });
  sub.on("subscribed", (ctx) =>
    tell("subscribed", {
      recoverable: ctx.recoverable,
      positioned: ctx.positioned,
      offset: ctx.streamPosition?.offset ?? 0,
      epoch: ctx.streamPosition?.epoch ?? "",
      wasRecovering: ctx.wasRecovering,
      recovered: ctx.recovered,
    }),
  );
  sub.on("subscribing", (ctx) => tell("subscribing", { code: ctx.code, reason: ctx.reason }));
  sub.on("unsubscribed", (ctx) => tell("unsubscribed", { code: ctx.code, reason: ctx.reason }));
  sub.on("error", (ctx) => tell("error", { code: ctx.error.code, message: ctx.error.message }));
  sub.on("publication", (ctx) =>
    tell("publication", { data: ctx.data, offset: ctx.offset ?? 0, from: ctx.info?.client ?? "" }),
  );
}

const verbs = {
  connect({ client: name, url, options = {} }) {
    const client = new Centrifuge(url, { websocket: WebSocket, ...options });
    clients.set(name, client);
    watchClient(name, client);
    client.connect();
    return {};
  },
  subscribe({ client: name, channel, options = {} }) {
    // Functions do not travel: the positions that `getState` is to return, in turn.
    const { states, ...rest } = options;
    if (states) {
      rest.getState = async () => {
        say({ event: "state", client: name, channel });
        return states.length > 1 ? states.shift() : states[0];
      };
    }
    const sub = clients.get(name).newSubscription(channel, rest);
    watchSubscription(name, channel, sub);
    sub.subscribe();
    return {};
  },
  unsubscribe({ client: name, channel }) {
    clients.get(name).getSubscription(channel).unsubscribe();
    return {};
  },
  resubscribe({ client: name, channel }) {
    clients.get(name).getSubscription(channel).subscribe();
    return {};
  },
  async publish({ client: name, channel, data }) {
    await clients.get(name).publish(channel, data);
    return {};
  },
  async history({ client: name, channel, limit, since, reverse }) {
    const result = await clients.get(name).history(channel, { limit, since, reverse });
    return {
      offset: result.offset,
      epoch: result.epoch,
      publications: result.publications.map((pub) => ({ data: pub.data, offset: pub.offset })),
    };
  },
  deltas({ client: name, channel }) {
    // How many publications came as deltas; the SDK counts them for its own debug output.
    return { deltas: clients.get(name).getSubscription(channel)._deltaNumDelta };
  },
  async rpc({ client: name, method, data }) {
    return { data: (await clients.get(name).rpc(method, data)).data };
  },
  async presence({ client: name, channel }) {
    return { clients: (await clients.get(name).presence(channel)).clients };
  },
  disconnect({ client: name }) {
    clients.get(name).disconnect();
    return {};
  },
};

async function obey(line) {
  const command = JSON.parse(line);
  try {
    say({ id: command.id, ok: await verbs[command.do](command) });
  } catch (error) {
    say({ id: command.id, error: { code: error.code ?? 0, message: String(error.message) } });
  }
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", obey);
lines.on("close", () => process.exit(0));
