#!/usr/bin/env node
/**
 * Subscribes to a channel and publishes on it from Node.js without packages: once over a plain TCP socket, and once with the
 * JavaScript client. The client uses WebSocket if Node.js has one (22 and newer, or 20 with --experimental-websocket),
 * otherwise a stream over HTTP.
 *
 *     node examples/node_client.mjs [channel [host [line port [web port]]]]
 *     node examples/node_client.mjs kitchen 127.0.0.1 8081 8082
 */

import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

const [channel = 'kitchen', host = '127.0.0.1', linePort = '8081', webPort = '8082'] = process.argv.slice(2);

function useLines() {
  const socket = createConnection({ host, port: Number(linePort) });
  socket.on('error', (error) => console.error(`lines: ${error.message}`));
  socket.on('close', () => setTimeout(useLines, 1000 + 1000 * Math.random()));
  socket.write(`NICK node\nSUB ${channel}\nPUB ${channel} hello over TCP\n`);
  // readline splits the stream into lines, and setEncoding decodes characters that packets have split.
  const lines = createInterface({ input: socket.setEncoding('utf8'), crlfDelay: Infinity });
  lines.on('line', (line) => console.log(`lines: ${line}`));
  lines.on('error', () => {}); // repeats the errors of the socket; without a listener, Node.js exits
}

async function useClient() {
  const { connect } = await import('../twistedsock/static/sockbridge.js'); // or 'sockbridge', if installed by npm
  const client = connect(`ws://${host}:${webPort}/ws`);
  client.addEventListener('open', ({ detail }) => {
    console.log(`client: connected as ${detail.id} by ${detail.transport}, from ${detail.from} to ${detail.to}`);
  });
  client.addEventListener('waiting', ({ detail }) => console.error(`client: next attempt in ${detail.delay} ms`));
  client.subscribe(channel, ({ offset, from, data }) => console.log(`client: ${offset} ${from}`, data));
  try {
    const offset = await client.publish(channel, { hello: 'from the client' });
    console.log(`client: published with offset ${offset}`);
  } catch (error) { // for example "disconnected": the event may or may not have been published
    console.error(`client: ${error.message}`);
  }
}

useLines();
await useClient();
