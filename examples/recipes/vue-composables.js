// Composables for Vue 3. In the application: app.provide(CLIENT, client). A channel can be a string, a ref or a getter.

import { computed, inject, onScopeDispose, shallowRef, toValue, watch } from 'vue';

import { follow, followState } from './follow.js';

export const CLIENT = Symbol('client');

/** 'connecting', 'open', 'waiting' or 'closed'. */
export function useConnection() {
  const client = inject(CLIENT);
  const state = shallowRef(client.state);
  onScopeDispose(followState(client, (present) => { state.value = present; }));
  return state;
}

/** The newest events of a channel, the oldest first. */
export function useChannel(channel, { last = 20 } = {}) {
  const client = inject(CLIENT);
  const events = shallowRef([]);
  watch(() => toValue(channel), (name, _, onCleanup) => {
    events.value = [];
    onCleanup(follow(client, name, last, (newest) => { events.value = newest; }));
  }, { immediate: true });
  return events;
}

/** The newest event of a channel; undefined if there is none. */
export function useLast(channel) {
  const events = useChannel(channel, { last: 1 });
  return computed(() => events.value[0]);
}
