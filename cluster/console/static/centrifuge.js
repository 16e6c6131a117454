// A small client of the Centrifuge JSON protocol: connect, subscribe, publish, recover.
//
// It dispatches "state", "log" and "publication". After a lost connection it resumes: every
// subscription from its position, the session by its id.
const MIN_DELAY = 500;
const MAX_DELAY = 20000;
const PING_GRACE = 10000;
const COMMAND_TIMEOUT = 5000;

const isTerminal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

export class Client extends EventTarget {
  #url; #token; #socket = null; #nextId = 1; #waiting = new Map(); #subscriptions = new Map();
  #attempt = 0; #retry = 0; #watch = 0; #ping = 0; #pong = false; #session = "";
  state = "disconnected";

  constructor(url, token = "") {
    super();
    this.#url = url;
    this.#token = token;
  }

  connect() {
    clearTimeout(this.#retry);
    this.#become("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#opened(socket);
    socket.onmessage = (event) => { if (socket === this.#socket) this.#read(event.data); };
    socket.onclose = (event) => { if (socket === this.#socket) this.#lost(event.code, event.reason); };
  }

  disconnect() {
    this.#leave();
    this.#become("disconnected");
  }

  // Like a network failure: no close handshake, and no new connection for a while.
  drop(milliseconds) {
    this.#leave();
    this.#become("connecting");
    this.#retry = setTimeout(() => this.connect(), milliseconds);
  }

  subscribe(channel) {
    this.#subscriptions.set(channel, { offset: 0, epoch: "", isRecoverable: false });
    if (this.state === "connected") this.#subscribe(channel);
  }

  publish(channel, data) {
    return this.#command({ publish: { channel, data } });
  }

  #emit(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  #become(state) {
    this.state = state;
    this.#emit("state", state);
  }

  #leave() {
    clearTimeout(this.#retry);
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#waiting.forEach(({ fail }) => fail(new Error("the connection was closed")));
    this.#waiting.clear();
  }

  #lost(code, reason) {
    this.#leave();
    const why = reason ? `${code} ${reason}` : `${code}`;
    if (isTerminal(code)) {
      this.#emit("log", { kind: "lost", text: `closed for good: ${why}` });
      this.#become("disconnected");
      return;
    }
    const delay = Math.min(MAX_DELAY, MIN_DELAY + Math.random() * MIN_DELAY * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 6);
    this.#emit("log", { kind: "lost", text: `connection lost (${why}), next try in ${Math.round(delay)} ms` });
    this.#become("connecting");
    this.#retry = setTimeout(() => this.connect(), delay);
  }

  #send(document) { this.#socket?.send(JSON.stringify(document)); }

  #command(command) {
    const id = this.#nextId++;
    return new Promise((done, fail) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return fail(new Error("not connected"));
      const timer = setTimeout(() => fail(new Error("no answer in time")), COMMAND_TIMEOUT);
      this.#waiting.set(id, { done, fail, timer });
      this.#send({ id, ...command });
    });
  }

  async #opened(socket) {
    try {
      const data = this.#session ? { session: this.#session } : undefined;
      const { connect } = await this.#command({ connect: { token: this.#token || undefined, name: "console", data } });
      this.#attempt = 0;
      this.#ping = (connect.ping ?? 0) * 1000;
      this.#pong = connect.pong ?? false;
      const session = connect.data?.session;
      this.#session = session?.id ?? "";
      this.#emit("log", { kind: "", text: `connected as ${connect.client}${session?.resumed ? ", session resumed" : ""}` });
      this.#become("connected");
      this.#expectPing();
      for (const channel of this.#subscriptions.keys()) this.#subscribe(channel);
    } catch (error) {
      if (socket !== this.#socket) return;
      this.#emit("log", { kind: "lost", text: `connect failed: ${error.message}` });
      if (error.isFinal) this.disconnect(); else socket.close();
    }
  }

  async #subscribe(channel) {
    const position = this.#subscriptions.get(channel);
    const request = { channel, positioned: true, recoverable: true };
    if (position.isRecoverable) Object.assign(request, { recover: true, offset: position.offset, epoch: position.epoch });
    try {
      const { subscribe } = await this.#command({ subscribe: request });
      const missed = subscribe.publications ?? [];
      const how = subscribe.was_recovering
        ? (subscribe.recovered ? `recovered ${missed.length} missed` : "could not recover: the history no longer has the position")
        : (subscribe.recoverable ? "recoverable" : "not recoverable");
      this.#emit("log", { kind: subscribe.recovered ? "recovered" : "", text: `subscribed to ${channel}: ${how}` });
      Object.assign(position, { offset: subscribe.offset ?? 0, epoch: subscribe.epoch ?? "", isRecoverable: subscribe.recoverable ?? false });
      missed.forEach((publication) => this.#publication(channel, publication, true));
    } catch (error) {
      this.#emit("log", { kind: "lost", text: `subscribe failed: ${error.message}` });
    }
  }

  #publication(channel, publication, isRecovered) {
    const position = this.#subscriptions.get(channel);
    if (position && publication.offset) position.offset = publication.offset;
    this.#emit("publication", { channel, data: publication.data, offset: publication.offset, isRecovered });
  }

  async #read(text) {
    this.#expectPing();
    for (const line of text.split("\n").filter(Boolean)) {
      this.#handle(JSON.parse(line));
      // Code that awaits this reply runs before the next reply of the frame is handled.
      await null;
    }
  }

  #handle(reply) {
    if (reply.id) {
      const { done, fail, timer } = this.#waiting.get(reply.id) ?? {};
      this.#waiting.delete(reply.id);
      clearTimeout(timer);
      const { error } = reply;
      if (error) fail?.(Object.assign(new Error(`${error.code} ${error.message}`), { isFinal: !error.temporary && error.code !== 109 }));
      else done?.(reply);
    } else if (reply.push?.pub) {
      this.#publication(reply.push.channel, reply.push.pub, false);
    } else if (reply.push?.unsubscribe) {
      const { code, reason } = reply.push.unsubscribe;
      this.#emit("log", { kind: "lost", text: `unsubscribed: ${code} ${reason}` });
      if (code >= 2500) this.#subscribe(reply.push.channel);
    } else if (!reply.push && this.#pong) {
      this.#send({});
    }
  }

  #expectPing() {
    clearTimeout(this.#watch);
    if (this.#ping) this.#watch = setTimeout(() => this.#lost(0, "no ping"), this.#ping + PING_GRACE);
  }
}
