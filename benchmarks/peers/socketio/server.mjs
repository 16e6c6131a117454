/**
 * Socket.IO with its Redis adapter as a peer of the benchmarks: one process, WebSocket only.
 *
 * Rules: "sub" joins a room and acknowledges, "pub" emits to a room on every server of the
 * cluster, "echo" acknowledges with what it was given. Compression stays off, as by default.
 */
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const { values } = parseArgs({
  options: { port: { type: "string" }, redis: { type: "string" } },
});

const publisher = createClient({ url: values.redis });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  serveClient: false,
  adapter: createAdapter(publisher, subscriber),
});

io.on("connection", (socket) => {
  socket.on("sub", (channel, acknowledge) => {
    socket.join(channel);
    acknowledge(true);
  });
  socket.on("pub", (channel, data) => io.to(channel).emit("msg", data));
  socket.on("echo", (data, acknowledge) => acknowledge(data));
});

// The kernel's default backlog in Node is 511; a storm of connects needs as much as the others have.
http.listen({ port: Number(values.port), host: "127.0.0.1", backlog: 4096 });
process.on("SIGTERM", () => process.exit(0));
