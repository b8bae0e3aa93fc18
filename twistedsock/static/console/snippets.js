/** Ready-made ways to connect to a channel, from the tools that people have at hand. No document is touched here. */

import { hostAndPort, lineEndpointOf, SHELL_SPECIAL, shellQuote, terminalCommand } from '../line-endpoints.js';

/** A literal of JavaScript and of Python, which may also stand in a page's script. */
const literal = (text) => JSON.stringify(text).replaceAll('<', '\\u003c');

/** How a shell pipes lines through an endpoint: until the other end closes, or until the last line has been sent. */
function pipesThrough(endpoint) {
  const { kind, host, port, path } = endpoint;
  if (kind === 'unix') return { pipe: `nc -U ${shellQuote(path)}`, last: `nc -NU ${shellQuote(path)}` };
  if (kind === 'tcp') return { pipe: `nc ${host} ${port}`, last: `nc -N ${host} ${port}` };
  const secure = `openssl s_client -quiet -connect ${hostAndPort(endpoint)}`;
  return { pipe: secure, last: secure };
}

/**
 * @param {object} about
 * @param {object[]} about.lines the line ports, as /bridge.json tells them
 * @param {string} about.origin of the web port, as `http://127.0.0.1:8082`
 * @param {string} about.channel
 * @param {boolean} about.token whether one is needed; the snippets take it from the environment, and never hold one
 * @returns {{kind: string, title: string, parts: {words: string, text: string, typed?: boolean}[]}[]}
 */
export function snippetsFor({ lines, origin, channel, token }) {
  const endpoint = lineEndpointOf(lines, new URL(origin).hostname);
  const written = endpoint ? [...(SHELL_SPECIAL.test(channel) ? [] : [typed(endpoint, channel, token)]), piped(endpoint, channel, token)] : [];
  return [
    ...written,
    curl(origin, channel, token),
    browser(origin, channel, token),
    endpoint ? python(endpoint, channel, token) : pythonWithout(origin, channel, token),
    endpoint ? node(endpoint, channel, token) : nodeWithout(origin, channel, token),
  ];
}

function typed(endpoint, channel, token) {
  const telnet = endpoint.kind === 'tcp';
  const said = [terminalCommand(endpoint), ...(token ? ['AUTH your-token'] : []), `SUB ${channel}`, `PUB ${channel} 21.5`];
  return {
    kind: 'telnet',
    title: telnet ? 'telnet' : 'terminal',
    parts: [{ words: 'Type it, line by line. HELP tells what else you can say, QUIT leaves.', text: said.join('\n'), typed: true }],
  };
}

function piped(endpoint, channel, token) {
  const { pipe, last } = pipesThrough(endpoint);
  // Not `echo`: that of dash and zsh obeys backslashes, and a channel's name may have some.
  const say = (line) => `printf '%s\\n' ${token ? '"AUTH $TOKEN" ' : ''}${shellQuote(line)}`;
  return {
    kind: 'nc',
    title: endpoint.kind === 'ssl' ? 'openssl' : 'nc',
    parts: [
      { words: 'Read it. What you type goes to the bridge.', text: `{ ${say(`SUB ${channel}`)}; cat; } | ${pipe}` },
      { words: 'Publish one event', text: `${say(`PUB ${channel} 21.5`)} | ${last}` },
    ],
  };
}

function addressOf(origin, channel) {
  return `${origin}/channels/${channel.split('/').map(encodeURIComponent).join('/')}/events`;
}

function curl(origin, channel, token) {
  const proof = token ? '-H "Authorization: Bearer $TOKEN" ' : '';
  const address = shellQuote(addressOf(origin, channel));
  return {
    kind: 'curl',
    title: 'curl',
    parts: [
      { words: 'Publish one event', text: `curl ${proof}-d 21.5 ${address}` },
      { words: 'Read it, as server-sent events', text: `curl -N ${proof}-H 'Accept: text/event-stream' ${address}` },
    ],
  };
}

function browser(origin, channel, token) {
  const options = token ? ', { token: prompt(\'Token\') }' : '';
  return {
    kind: 'browser',
    title: 'Browser',
    parts: [{
      words: 'A page of yours. Start the bridge with --allow-origin and where you serve it from.',
      text: `<!doctype html>
<meta charset="utf-8">
<title>Events</title>
<ol id="events"></ol>
<script type="module">
  import { connect } from ${literal(`${origin}/sockbridge.js`)};

  const client = connect(${literal(`${origin}/ws`)}${options});
  client.subscribe(${literal(channel)}, ({ from, data }) => {
    const row = document.createElement('li');
    row.textContent = \`\${from}: \${JSON.stringify(data)}\`;
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
  const proof = token ? '\nprint("AUTH", os.environ["TOKEN"], file=lines)' : '';
  return {
    kind: 'python',
    title: 'Python',
    parts: [{
      words: 'A plain socket; nothing to install',
      text: `${modules.join('\n')}

${open}${secure}
lines = connection.makefile("rw", encoding="utf-8", newline="\\n")${proof}
print(${literal(`SUB ${channel}`)}, file=lines)
print(${literal(`PUB ${channel} 21.5`)}, file=lines, flush=True)
for line in lines:
    print(line, end="", flush=True)`,
    }],
  };
}

function pythonWithout(origin, channel, token) {
  const proof = token ? ', "Authorization": "Bearer " + os.environ["TOKEN"]' : '';
  return {
    kind: 'python',
    title: 'Python',
    parts: [{
      words: 'Server-sent events, as no line port can be reached; nothing to install',
      text: `${token ? 'import os\n' : ''}from urllib.request import Request, urlopen

address = ${literal(addressOf(origin, channel))}
for line in urlopen(Request(address, headers={"Accept": "text/event-stream"${proof}})):
    print(line.decode(), end="", flush=True)`,
    }],
  };
}

function node(endpoint, channel, token) {
  const { kind, host, port, path } = endpoint;
  const where = kind === 'unix' ? literal(path) : `{ host: ${literal(host)}, port: ${port}${kind === 'ssl' ? `, servername: ${literal(host)}` : ''} }`;
  const proof = token ? '\nbridge.write(`AUTH ${process.env.TOKEN}\\n`);' : '';
  return {
    kind: 'node',
    title: 'Node',
    parts: [{
      words: 'A plain socket; nothing to install. Save it as events.mjs.',
      text: `import { connect } from '${kind === 'ssl' ? 'node:tls' : 'node:net'}';
import { createInterface } from 'node:readline';

const bridge = connect(${where});${proof}
bridge.write(${literal(`SUB ${channel}\nPUB ${channel} 21.5\n`)});
for await (const line of createInterface({ input: bridge })) console.log(line);`,
    }],
  };
}

function nodeWithout(origin, channel, token) {
  const proof = token ? ', Authorization: `Bearer ${process.env.TOKEN}`' : '';
  return {
    kind: 'node',
    title: 'Node',
    parts: [{
      words: 'Server-sent events, as no line port can be reached. Save it as events.mjs.',
      text: `const answer = await fetch(${literal(addressOf(origin, channel))}, { headers: { Accept: 'text/event-stream'${proof} } });
for await (const piece of answer.body) process.stdout.write(piece);`,
    }],
  };
}
