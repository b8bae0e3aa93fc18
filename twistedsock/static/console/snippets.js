/** Snippets that connect to a channel from common tools. Uses no DOM. */

import { eventsAddress } from '../event-formats.js';
import { hostAndPort, lineEndpointOf, SHELL_SPECIAL, shellQuote, terminalCommand } from '../line-endpoints.js';

/** A string literal for JavaScript and Python, safe inside a script element. */
const literal = (text) => JSON.stringify(text).replaceAll('<', '\\u003c');

/** Shell commands that pipe lines through an endpoint: until the server closes, or until the last line has been sent. */
function pipeCommands(endpoint) {
  const { kind, host, port, path } = endpoint;
  if (kind === 'unix') return { pipe: `nc -U ${shellQuote(path)}`, last: `nc -NU ${shellQuote(path)}` };
  if (kind === 'tcp') return { pipe: `nc ${host} ${port}`, last: `nc -N ${host} ${port}` };
  const secure = `openssl s_client -quiet -connect ${hostAndPort(endpoint)}`;
  return { pipe: secure, last: secure };
}

/**
 * @param {object} about
 * @param {object[]} about.lines the line ports from /bridge.json
 * @param {string} about.origin of the web port, for example `http://127.0.0.1:8082`
 * @param {string} about.channel
 * @param {boolean} about.token true if a token is needed; the snippets read it from the environment
 * @returns {{kind: string, title: string, parts: {description: string, text: string, typed?: boolean}[]}[]}
 */
export function snippetsFor({ lines, origin, channel, token }) {
  const endpoint = lineEndpointOf(lines, new URL(origin).hostname);
  const written = endpoint ? [...(SHELL_SPECIAL.test(channel) ? [] : [terminal(endpoint, channel, token)]), netcat(endpoint, channel, token)] : [];
  return [
    ...written,
    curl(origin, channel, token),
    browser(origin, channel, token),
    endpoint ? python(endpoint, channel, token) : pythonOverHttp(origin, channel, token),
    endpoint ? node(endpoint, channel, token) : nodeOverHttp(origin, channel, token),
  ];
}

function terminal(endpoint, channel, token) {
  const telnet = endpoint.kind === 'tcp';
  const lines = [terminalCommand(endpoint), ...(token ? ['AUTH your-token'] : []), `SUB ${channel}`, `PUB ${channel} 21.5`];
  return {
    kind: 'telnet',
    title: telnet ? 'telnet' : 'terminal',
    parts: [{ description: 'Type these lines one at a time. HELP lists commands, QUIT disconnects.', text: lines.join('\n'), typed: true }],
  };
}

function netcat(endpoint, channel, token) {
  const { pipe, last } = pipeCommands(endpoint);
  // Not `echo`: in dash and zsh it interprets backslashes, which a channel name can contain.
  const print = (line) => `printf '%s\\n' ${token ? '"AUTH $TOKEN" ' : ''}${shellQuote(line)}`;
  return {
    kind: 'nc',
    title: endpoint.kind === 'ssl' ? 'openssl' : 'nc',
    parts: [
      { description: 'Subscribe. Anything you type is sent to the server.', text: `{ ${print(`SUB ${channel}`)}; cat; } | ${pipe}` },
      { description: 'Publish one event', text: `${print(`PUB ${channel} 21.5`)} | ${last}` },
    ],
  };
}

function curl(origin, channel, token) {
  const auth = token ? '-H "Authorization: Bearer $TOKEN" ' : '';
  const address = shellQuote(eventsAddress(origin, channel));
  return {
    kind: 'curl',
    title: 'curl',
    parts: [
      { description: 'Publish one event', text: `curl ${auth}-d 21.5 ${address}` },
      { description: 'Subscribe with server-sent events', text: `curl -N ${auth}-H 'Accept: text/event-stream' ${address}` },
    ],
  };
}

function browser(origin, channel, token) {
  const options = token ? ', { token: prompt(\'Token\') }' : '';
  return {
    kind: 'browser',
    title: 'Browser',
    parts: [{
      description: 'Your own page. Start the server with --allow-origin and the origin of the page.',
      text: `<!doctype html>
<meta charset="utf-8">
<title>Events</title>
<ol id="events"></ol>
<script type="module">
  import { connect } from ${literal(`${origin}/sockbridge.js`)};

  const client = connect(${literal(`${origin}/ws`)}${options});
  client.subscribe(${literal(channel)}, ({ time, from, data }) => {
    const row = document.createElement('li');
    row.textContent = \`\${new Date(time).toLocaleTimeString()} \${from}: \${JSON.stringify(data)}\`;
    document.getElementById('events').append(row);
  }, { last: 10 });
  client.publish(${literal(channel)}, 21.5);
</script>`,
    }],
  };
}

function python(endpoint, channel, token) {
  const { kind, host, port, path } = endpoint;
  const modules = [...(token ? ['import os'] : []), 'import socket', ...(kind === 'ssl' ? ['import ssl'] : [])];
  const open = kind === 'unix'
    ? `connection = socket.socket(socket.AF_UNIX)\nconnection.connect(${literal(path)})`
    : `connection = socket.create_connection((${literal(host)}, ${port}))`;
  const secure = kind === 'ssl' ? `\nconnection = ssl.create_default_context().wrap_socket(connection, server_hostname=${literal(host)})` : '';
  const auth = token ? '\nprint("AUTH", os.environ["TOKEN"], file=lines)' : '';
  return {
    kind: 'python',
    title: 'Python',
    parts: [{
      description: 'A plain socket, nothing to install',
      text: `${modules.join('\n')}

${open}${secure}
lines = connection.makefile("rw", encoding="utf-8", newline="\\n")${auth}
print(${literal(`SUB ${channel}`)}, file=lines)
print(${literal(`PUB ${channel} 21.5`)}, file=lines, flush=True)
for line in lines:
    print(line, end="", flush=True)`,
    }],
  };
}

function pythonOverHttp(origin, channel, token) {
  const auth = token ? ', "Authorization": "Bearer " + os.environ["TOKEN"]' : '';
  return {
    kind: 'python',
    title: 'Python',
    parts: [{
      description: 'Server-sent events, because no line port is reachable. Nothing to install.',
      text: `${token ? 'import os\n' : ''}from urllib.request import Request, urlopen

address = ${literal(eventsAddress(origin, channel))}
for line in urlopen(Request(address, headers={"Accept": "text/event-stream"${auth}})):
    print(line.decode(), end="", flush=True)`,
    }],
  };
}

function node(endpoint, channel, token) {
  const { kind, host, port, path } = endpoint;
  const where = kind === 'unix' ? literal(path) : `{ host: ${literal(host)}, port: ${port}${kind === 'ssl' ? `, servername: ${literal(host)}` : ''} }`;
  const auth = token ? '\nserver.write(`AUTH ${process.env.TOKEN}\\n`);' : '';
  return {
    kind: 'node',
    title: 'Node',
    parts: [{
      description: 'A plain socket, nothing to install. Save it as events.mjs.',
      text: `import { connect } from '${kind === 'ssl' ? 'node:tls' : 'node:net'}';
import { createInterface } from 'node:readline';

const server = connect(${where});${auth}
server.write(${literal(`SUB ${channel}\nPUB ${channel} 21.5\n`)});
for await (const line of createInterface({ input: server })) console.log(line);`,
    }],
  };
}

function nodeOverHttp(origin, channel, token) {
  const auth = token ? ', Authorization: `Bearer ${process.env.TOKEN}`' : '';
  return {
    kind: 'node',
    title: 'Node',
    parts: [{
      description: 'Server-sent events, because no line port is reachable. Save it as events.mjs.',
      text: `const answer = await fetch(${literal(eventsAddress(origin, channel))}, { headers: { Accept: 'text/event-stream'${auth} } });
for await (const piece of answer.body) process.stdout.write(piece);`,
    }],
  };
}
