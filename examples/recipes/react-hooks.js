// Hooks for React 18 and 19. Around the components that use them: <ClientContext value={client}>

import { createContext, useCallback, useContext, useEffect, useState, useSyncExternalStore } from 'react';

import { follow, followState } from './follow.js';

export const ClientContext = createContext(null);

/** 'connecting', 'open', 'waiting' or 'closed'. */
export function useConnection() {
  const client = useContext(ClientContext);
  const subscribe = useCallback((show) => followState(client, show), [client]);
  return useSyncExternalStore(subscribe, () => client.state, () => 'connecting');
}

/** The newest events of a channel, the oldest first. */
export function useChannel(channel, { last = 20 } = {}) {
  const client = useContext(ClientContext);
  const [events, setEvents] = useState([]);
  useEffect(() => {
    setEvents([]);
    return follow(client, channel, last, setEvents);
  }, [client, channel, last]);
  return events;
}

/** The newest event of a channel; undefined if there is none. */
export const useLast = (channel) => useChannel(channel, { last: 1 })[0];
