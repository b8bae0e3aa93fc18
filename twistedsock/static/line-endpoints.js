/** Finds the line port that a terminal can reach, from the list in /bridge.json. Uses no DOM. */

/** Characters with a special meaning in shells. Commands copied for telnet are typed into a shell if telnet is not running. */
export const SHELL_SPECIAL = /[!"$&'()<>;[\\\]^`{|}~]/;

/** Quotes a word for a shell, if necessary. */
export const shellQuote = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const withoutBrackets = (host) => host.replace(/[[\]]/g, '');

const isLoopback = (host) => /^(.+\.)?localhost$|^(::ffff:)?127\.[\d.]+$|^::1$/i.test(withoutBrackets(host));

/** A browser on another machine cannot reach the loopback interface or a Unix socket of the server. */
function isReachable({ kind, host }, pageHost) {
  return isLoopback(pageHost) || (kind !== 'unix' && !isLoopback(host ?? ''));
}

/** Returns the most convenient line endpoint for a browser that opened a page at `pageHost`, or undefined. */
export function lineEndpointOf(lines, pageHost) {
  const reachable = lines.filter((line) => isReachable(line, pageHost));
  const endpoint = ['tcp', 'ssl', 'unix'].map((wanted) => reachable.find(({ kind }) => kind === wanted)).find(Boolean);
  if (!endpoint || endpoint.kind === 'unix') return endpoint;
  const anywhere = ['', '0.0.0.0', '::', undefined].includes(endpoint.host);
  return { ...endpoint, host: withoutBrackets(anywhere ? pageHost : endpoint.host) };
}

/** Explains why `lineEndpointOf` returned undefined. */
export function describeNoEndpoint(lines) {
  return lines.length ? 'The line port of this server only accepts connections from the same machine.' : 'This server has no line port.';
}

export const hostAndPort = ({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);

/** Returns the shell command that connects a terminal to an endpoint. */
export function terminalCommand(endpoint) {
  const { kind, host, port, path } = endpoint;
  if (kind === 'unix') return `nc -U ${shellQuote(path)}`;
  return kind === 'ssl' ? `openssl s_client -quiet -connect ${hostAndPort(endpoint)}` : `telnet ${host} ${port}`;
}

/**
 * Returns the lines to type to subscribe to `channel` and publish on it, with authentication if needed. Returns undefined
 * if no line endpoint is reachable or the name of the channel has a special meaning in shells. Assumes the default port
 * until /bridge.json is loaded.
 */
export function terminalCommands(server, pageHost, channel, withToken = false) {
  if (SHELL_SPECIAL.test(channel)) return undefined;
  const endpoint = lineEndpointOf(server ? server.lines ?? [] : [{ kind: 'tcp', host: pageHost, port: 8081 }], pageHost);
  return endpoint && [terminalCommand(endpoint), ...(withToken ? ['AUTH your-token'] : []), `SUB ${channel}`, `PUB ${channel} 21.5`];
}
