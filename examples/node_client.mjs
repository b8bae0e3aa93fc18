#!/usr/bin/env node
/**
 * Reads a channel and publishes to it from Node, without any package: once over a plain TCP socket, as a terminal would, and
 * once more with the client that pages use: over a WebSocket where Node has one (22 and newer; 20 with --experimental-websocket),
 * else over the stream that stands in for it.
 *
 *     node examples/node_client.mjs [channel [host [line port [web port]]]]
 *     node examples/node_client.mjs kitchen 127.0.0.1 8081 8082
 */

import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

const [channel = 'kitchen', host = '127.0.0.1', linePort = '8081', webPort = '8082'] = process.argv.slice(2);

function speakLines() {
  const socket = createConnection({ host, port: Number(linePort) });
  socket.on('error', (error) => console.error(`lines: ${error.message}`));
  socket.on('close', () => setTimeout(speakLines, 1000 + 1000 * Math.random()));
  socket.write(`NICK node\nSUB ${channel}\nPUB ${channel} hello over TCP\n`);
  // readline joins what packets have cut, and Node decodes UTF-8 across the cuts.
  const lines = createInterface({ input: socket.setEncoding('utf8'), crlfDelay: Infinity });
  lines.on('line', (line) => console.log(`lines: ${line}`));
  lines.on('error', () => {}); // it repeats the error of its input, and Node ends if there is no listener
}

async function speakAsPagesDo() {
  const { connect } = await import('../twistedsock/static/sockbridge.js'); // or, installed by npm, 'sockbridge'
  const client = connect(`ws://${host}:${webPort}/ws`);
  client.addEventListener('open', ({ detail }) => {
    console.log(`page: connected as ${detail.id} by ${detail.transport}, from ${detail.from} to ${detail.to}`);
  });
  client.addEventListener('waiting', ({ detail }) => console.error(`page: next try in ${detail.delay} ms`));
  client.subscribe(channel, ({ offset, from, data }) => console.log(`page: ${offset} ${from}`, data));
  try {
    const offset = await client.publish(channel, { hello: 'as pages say it' });
    console.log(`page: published as ${offset}`);
  } catch (error) { // such as "disconnected": the event may or may not have been published
    console.error(`page: ${error.message}`);
  }
}

speakLines();
await speakAsPagesDo();
