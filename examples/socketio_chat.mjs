// A chat in the terminal for a stock Socket.IO server, as its tutorial writes it:
//
//   io.on('connection', (socket) => socket.on('chat message', (text) => io.emit('chat message', text)));
//
// The same file works with `twistd sockbridge --socketio-channel chat` instead, which needs no such code.
//
// Usage: npm install socket.io-client; node socketio_chat.mjs [URL]

import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const socket = io(process.argv[2] ?? 'http://127.0.0.1:8082');

socket.on('connect', () => console.log('connected'));
socket.on('disconnect', () => console.log('disconnected'));
socket.on('chat message', (text) => console.log(`> ${text}`));

for await (const line of createInterface({ input: process.stdin })) {
  if (line) socket.emit('chat message', line);
}
socket.disconnect();
