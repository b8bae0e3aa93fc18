// The smallest relay over Socket.IO that is fair: node socketio.mjs HOST PORT FOLDER, where node_modules lies in FOLDER.
//
// Fair: rooms are what Socket.IO itself offers for this, and it encodes an event for a room once, frame included. The
// WebSocket transport from the start spares it the polling; compression is off, as is its default. The request of the
// handshake is let go, as its own documentation advises for memory. A ping an hour, so that none falls into a load.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [host, port, folder] = process.argv.slice(2);
const { Server } = createRequire(`${folder}/`)("socket.io");

const http = createServer();
const server = new Server(http, {
  transports: ["websocket"],
  pingInterval: 3_600_000,
  serveClient: false,
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
