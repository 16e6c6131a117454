// What the npm SDK is told to do, and what it reports: in Node (sdk_client.mjs) and in a page (sdk_browser.py).
//
// In:  {"id": 1, "do": "publish", "client": "ann", "channel": "news", "data": 5}
// Out: {"id": 1, "ok": {...}} or {"id": 1, "error": {"code": 108, "message": "..."}}, and to `say`
//      {"event": "publication", "client": "ann", "channel": "news", ...} whenever the SDK says so
// With `speaksProtobuf` the clients speak Protobuf; data is JSON all the same.

export function commander({ Centrifuge, speaksProtobuf, transport, say }) {
  const clients = new Map();

  // Protobuf clients send and get bytes.
  function sent(data) {
    return speaksProtobuf ? new TextEncoder().encode(JSON.stringify(data)) : data;
  }

  function got(data) {
    if (!speaksProtobuf || data === undefined || data === null || data.length === 0) return data;
    return JSON.parse(new TextDecoder().decode(data));
  }

  function watchClient(name, client) {
    const tell = (event, facts) => say({ event, client: name, ...facts });
    client.on("connecting", (ctx) => tell("connecting", { code: ctx.code, reason: ctx.reason }));
    client.on("connected", (ctx) => tell("connected", { id: ctx.client, data: got(ctx.data) ?? null }));
    client.on("disconnected", (ctx) => tell("disconnected", { code: ctx.code, reason: ctx.reason }));
    client.on("message", (ctx) => tell("message", { data: got(ctx.data) }));
    client.on("subscribed", ({ channel, wasRecovering, recovered }) =>
      tell("server_subscribed", { channel, wasRecovering, recovered }),
    );
    client.on("unsubscribed", (ctx) => tell("server_unsubscribed", { channel: ctx.channel }));
    client.on("publication", (ctx) =>
      tell("server_publication", { channel: ctx.channel, data: got(ctx.data) }),
    );
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
      tell("publication", { data: got(ctx.data), offset: ctx.offset ?? 0, from: ctx.info?.client ?? "" }),
    );
  }

  // Makes tokens as an application's backend does: {"key": ..., "user": ..., "ttl": seconds}.
  function signer(name, tokens) {
    const text = new TextEncoder();
    const base64url = (bytes) =>
      btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const part = (value) => base64url(text.encode(JSON.stringify(value)));
    return async (ctx) => {
      const exp = Math.floor(Date.now() / 1000) + tokens.ttl;
      const claims = { sub: tokens.user, exp, ...(ctx?.channel && { channel: ctx.channel }) };
      const body = `${part({ alg: "HS256" })}.${part(claims)}`;
      const algorithm = { name: "HMAC", hash: "SHA-256" };
      const key = await crypto.subtle.importKey("raw", text.encode(tokens.key), algorithm, false, ["sign"]);
      const signature = await crypto.subtle.sign("HMAC", key, text.encode(body));
      say({ event: "token", client: name, channel: ctx?.channel ?? "" });
      return `${body}.${base64url(new Uint8Array(signature))}`;
    };
  }

  function watchMembers(name, channel, sub) {
    const tell = (event, info) =>
      say({ event, client: name, channel, who: info.client, user: info.user, info: got(info.connInfo) ?? null });
    sub.on("join", (ctx) => tell("join", ctx.info));
    sub.on("leave", (ctx) => tell("leave", ctx.info));
  }

  const verbs = {
    connect({ client: name, url, options = {}, tokens = null }) {
      const getToken = tokens ? { getToken: signer(name, tokens) } : {};
      const data = options.data === undefined ? {} : { data: sent(options.data) };
      const client = new Centrifuge(url, { ...transport, ...options, ...data, ...getToken });
      clients.set(name, client);
      watchClient(name, client);
      client.connect();
      return {};
    },
    subscribe({ client: name, channel, options = {}, tokens = null }) {
      // Functions do not travel: the positions that `getState` is to return, in turn.
      const { states, ...rest } = options;
      if (states) {
        rest.getState = async () => {
          say({ event: "state", client: name, channel });
          return states.length > 1 ? states.shift() : states[0];
        };
      }
      const getToken = tokens ? { getToken: signer(name, tokens) } : {};
      const sub = clients.get(name).newSubscription(channel, { ...rest, ...getToken });
      watchSubscription(name, channel, sub);
      watchMembers(name, channel, sub);
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
      await clients.get(name).publish(channel, sent(data));
      return {};
    },
    async send({ client: name, data }) {
      await clients.get(name).send(sent(data));
      return {};
    },
    async history({ client: name, channel, limit, since, reverse }) {
      const result = await clients.get(name).history(channel, { limit, since, reverse });
      return {
        offset: result.offset,
        epoch: result.epoch,
        publications: result.publications.map((pub) => ({ data: got(pub.data), offset: pub.offset })),
      };
    },
    deltas({ client: name, channel }) {
      // How many publications came as deltas; the SDK counts them for its own debug output.
      return { deltas: clients.get(name).getSubscription(channel)._deltaNumDelta };
    },
    async rpc({ client: name, method, data }) {
      return { data: got((await clients.get(name).rpc(method, sent(data))).data) };
    },
    async presence({ client: name, channel }) {
      const members = Object.values((await clients.get(name).presence(channel)).clients);
      return { clients: Object.fromEntries(members.map((one) => [one.client, one.user])) };
    },
    async presence_stats({ client: name, channel }) {
      const stats = await clients.get(name).presenceStats(channel);
      return { clients: stats.numClients, users: stats.numUsers };
    },
    disconnect({ client: name }) {
      clients.get(name).disconnect();
      return {};
    },
  };

  return async (command) => {
    try {
      return { id: command.id, ok: await verbs[command.do](command) };
    } catch (error) {
      return { id: command.id, error: { code: error.code ?? 0, message: String(error.message) } };
    }
  };
}
