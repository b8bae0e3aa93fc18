// Stores for Svelte 4 and 5. They subscribe while a component uses them.

import { derived, readable } from 'svelte/store';

import { follow, followState } from './follow.js';

/** 'connecting', 'open', 'waiting' or 'closed'. */
export const connectionStore = (client) => readable(client.state, (set) => {
  set(client.state);
  return followState(client, set);
});

/** The newest events of a channel, the oldest first. */
export const channelStore = (client, channel, { last = 20 } = {}) => readable([], (set) => follow(client, channel, last, set));

/** The newest event of a channel; undefined if there is none. */
export const lastStore = (client, channel) => derived(channelStore(client, channel, { last: 1 }), ([event]) => event);
