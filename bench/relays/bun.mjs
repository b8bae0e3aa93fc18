// The smallest relay on Bun that is fair: bun bun.mjs HOST PORT. Bun's WebSocket server is uWebSockets, in C++.
//
// Fair: JSON is parsed once and written once for an event, and Bun's own publish sends it to the subscribers of a topic.
// Compression and pings are off. Its limit of what waits for a slow reader is raised from 16 MiB, because Bun drops what
// exceeds it.
const [host, port] = process.argv.slice(2);

const server = Bun.serve({
  hostname: host,
  port: Number(port),
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("WebSocket only", { status: 426 })),
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0,
    sendPings: false,
    backpressureLimit: 1024 * 1024 * 1024,
    open(socket) {
      socket.send('["welcome"]');
    },
    message(socket, message) {
      const [kind, channel, data] = JSON.parse(message);
      if (kind === "publish") {
        server.publish(channel, JSON.stringify(["event", channel, data]));
      } else if (kind === "subscribe") {
        socket.subscribe(channel);
        socket.send(JSON.stringify(["subscribed", channel]));
      }
    },
  },
});
