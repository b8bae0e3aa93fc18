/** Where a terminal or a program reaches the bridge's line ports, as /bridge.json lists them. No document is touched here. */

/** What a shell obeys. Lines that are copied to be typed into telnet end in a shell if telnet does not run, or any longer. */
export const SHELL_SPECIAL = /[!"$&'()<>;[\\\]^`{|}~]/;

/** A word as a shell takes it for itself. */
export const shellQuote = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const withoutBrackets = (host) => host.replace(/[[\]]/g, '');

const isLoopback = (host) => /^(.+\.)?localhost$|^(::ffff:)?127\.[\d.]+$|^::1$/i.test(withoutBrackets(host));

/** A browser on another machine, as behind a proxy, reaches neither the bridge's loopback interface nor its Unix sockets. */
function isReachable({ kind, host }, pageHost) {
  return isLoopback(pageHost) || (kind !== 'unix' && !isLoopback(host ?? ''));
}

/** The line endpoint that is the easiest to reach for a browser that opened a page at `pageHost`; undefined if there is none. */
export function lineEndpointOf(lines, pageHost) {
  const reachable = lines.filter((line) => isReachable(line, pageHost));
  const endpoint = ['tcp', 'ssl', 'unix'].map((wanted) => reachable.find(({ kind }) => kind === wanted)).find(Boolean);
  if (!endpoint || endpoint.kind === 'unix') return endpoint;
  const anywhere = ['', '0.0.0.0', '::', undefined].includes(endpoint.host);
  return { ...endpoint, host: withoutBrackets(anywhere ? pageHost : endpoint.host) };
}

/** Why `lineEndpointOf` found none. */
export function describeNoEndpoint(lines) {
  return lines.length ? 'The line port of this bridge accepts connections from its own machine only.' : 'This bridge has no line port open.';
}

/** Host and port in one word. */
export const hostAndPort = ({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);

/** The command with which a person opens an endpoint in a terminal. */
export function terminalCommand(endpoint) {
  const { kind, host, port, path } = endpoint;
  if (kind === 'unix') return `nc -U ${shellQuote(path)}`;
  return kind === 'ssl' ? `openssl s_client -quiet -connect ${hostAndPort(endpoint)}` : `telnet ${host} ${port}`;
}

/**
 * What to type to read `channel` and to publish on it, after a token if one is needed; undefined if no line endpoint is
 * reachable, or a shell would obey the channel's name. Before /bridge.json is known, the usual port is assumed.
 */
export function terminalCommands(bridge, pageHost, channel, withToken = false) {
  if (SHELL_SPECIAL.test(channel)) return undefined;
  const endpoint = lineEndpointOf(bridge ? bridge.lines ?? [] : [{ kind: 'tcp', host: pageHost, port: 8081 }], pageHost);
  return endpoint && [terminalCommand(endpoint), ...(withToken ? ['AUTH your-token'] : []), `SUB ${channel}`, `PUB ${channel} 21.5`];
}
