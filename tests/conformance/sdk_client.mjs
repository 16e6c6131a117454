// The npm SDK in Node under remote control: one JSON command per line in, answers and events out.
//
// The commands are those of sdk_verbs.mjs. Ends with its standard input. With the argument `protobuf` the
// clients speak Protobuf.

import { webcrypto } from "node:crypto";
import readline from "node:readline";
import WebSocket from "ws";
import { commander } from "./sdk_verbs.mjs";

// Node 18 has it here only, browsers and later versions of Node everywhere.
globalThis.crypto ??= webcrypto;

const speaksProtobuf = process.argv[2] === "protobuf";
const { Centrifuge } = await import(speaksProtobuf ? "centrifuge/build/protobuf" : "centrifuge");

function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

const obey = commander({ Centrifuge, speaksProtobuf, transport: { websocket: WebSocket }, say });
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", async (line) => say(await obey(JSON.parse(line))));
lines.on("close", () => process.exit(0));
