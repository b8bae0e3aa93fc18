// The smallest relay over `ws` that is fair: node ws.mjs HOST PORT FOLDER, where node_modules lies in FOLDER.
//
// Fair: JSON is parsed once and written once for an event, and all readers get the same Buffer, so that ws need not
// encode the string again for each. Compression is off, as everywhere here, and so is the unused list of clients of ws. No timers, no pings. All of it is documented API of ws.
import { createRequire } from "node:module";

const [host, port, folder] = process.argv.slice(2);
const { WebSocketServer } = createRequire(`${folder}/`)("ws");

const TEXT = { binary: false };
const channels = new Map();

const server = new WebSocketServer({ host, port: Number(port), perMessageDeflate: false, clientTracking: false });

server.on("connection", (socket) => {
  const joined = [];
  socket.on("message", (message) => {
    const [kind, channel, data] = JSON.parse(message);
    if (kind === "publish") {
      const readers = channels.get(channel);
      if (readers === undefined) return;
      const event = Buffer.from(JSON.stringify(["event", channel, data]));
      for (const reader of readers) reader.send(event, TEXT);
    } else if (kind === "subscribe") {
      if (!channels.has(channel)) channels.set(channel, new Set());
      channels.get(channel).add(socket);
      joined.push(channel);
      socket.send(JSON.stringify(["subscribed", channel]));
    }
  });
  socket.on("close", () => {
    for (const channel of joined) {
      const readers = channels.get(channel);
      readers?.delete(socket);
      if (readers?.size === 0) channels.delete(channel);
    }
  });
  socket.on("error", () => socket.terminate());
  socket.send('["welcome"]');
});
