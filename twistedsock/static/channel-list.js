/** The channels of the server that this client can read, with their newest events, over HTTP. */

import { withBytes } from './bytes.js';
import { currentToken } from './identity.js';

/** Maximum number of channels in one answer of the server. */
export const CHANNELS_PER_REQUEST = 1000;

/**
 * @typedef {{channel: string, readers: number, events: number, time: number | null, last: {data: any} | null}} ListedChannel `last` is null
 * if the history is empty, or the event is long
 */

/**
 * Returns the first channels by name, and the number of all. Returns undefined if the server does not answer or the client
 * has no right to list channels.
 * @param {string} [prefix]
 * @returns {Promise<{channels: ListedChannel[], total: number} | undefined>}
 */
export async function listChannels(prefix = '') {
  const query = new URLSearchParams({ last: '1', limit: String(CHANNELS_PER_REQUEST), ...(prefix ? { prefix } : {}) });
  const token = currentToken();
  try {
    const reply = await fetch(`channels?${query}`, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: 'no-store' });
    if (!reply.ok) return undefined;
    const { channels, total } = await reply.json();
    return { channels: channels.map((channel) => ({ ...channel, last: channel.last && withBytes(channel.last) })), total };
  } catch {
    return undefined; // the connection bar shows that the server is not reachable
  }
}
