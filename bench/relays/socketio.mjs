// The smallest relay over Socket.IO that is fair: node socketio.mjs HOST PORT FOLDER [REDIS], where node_modules lies in
// FOLDER. With the port of a Redis, the Redis Streams adapter joins it with other relays, with its defaults.
//
// Fair: rooms are what Socket.IO itself offers for this, and it encodes an event for a room once, frame included. The
// WebSocket transport from the start spares it the polling; compression is off, as is its default. The request of the
// handshake is let go, as its own documentation advises for memory. A ping an hour, so that none falls into a load.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [host, port, folder, redis] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { Server } = require("socket.io");

async function adapter() {
  const client = require("redis").createClient({ url: `redis://${host}:${redis}` });
  await client.connect();
  return require("@socket.io/redis-streams-adapter").createAdapter(client);
}

const http = createServer();
const server = new Server(http, {
  transports: ["websocket"],
  pingInterval: 3_600_000,
  serveClient: false,
  ...(redis ? { adapter: await adapter() } : {}),
});

server.engine.on("connection", (connection) => {
  connection.request = null;
});

server.on("connection", (socket) => {
  socket.on("subscribe", (channel, done) => {
    socket.join(channel);
    done();
  });
  socket.on("publish", (channel, data) => {
    server.to(channel).emit("event", channel, data);
  });
});

http.listen(Number(port), host);
