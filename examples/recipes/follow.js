// The newest events of a channel, for all recipes in this folder.

/**
 * Calls `show` with an array of the newest events of a channel, at most `last` of them, now from the history and then after
 * each event. Returns a function that ends it.
 */
export function follow(client, channel, last, show) {
  let events = [];
  const update = (newer) => {
    events = newer;
    show(events);
  };
  const subscription = client.subscribe(channel, (event) => update([...events, event].slice(-last)), {
    last,
    // The server has lost events, for example because another machine took over: only the first ones are still valid.
    onReset: ({ good }) => update(events.filter(({ offset }) => offset <= good)),
    onLost: ({ reason }) => { if (reason === 'epoch') update([]); },
  });
  return () => subscription.unsubscribe();
}

export const STATES = ['connecting', 'open', 'waiting', 'closed'];

/** Calls `show` with each state of the connection. Returns a function that ends it. */
export function followState(client, show) {
  const changed = () => show(client.state);
  for (const state of STATES) client.addEventListener(state, changed);
  return () => { for (const state of STATES) client.removeEventListener(state, changed); };
}
