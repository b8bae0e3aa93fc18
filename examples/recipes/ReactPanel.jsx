import { useState } from 'react';

import { useChannel, useConnection, useLast } from './react-hooks.js';

export function ReactPanel() {
  const [channel, setChannel] = useState('kitchen');
  const state = useConnection();
  const last = useLast(channel);
  const events = useChannel(channel, { last: 3 });
  return (
    <section aria-label="React">
      <h2>React, {state}</h2>
      <input aria-label="channel" value={channel} onChange={({ target }) => setChannel(target.value)} />
      <output>{last ? JSON.stringify(last.data) : 'nothing yet'}</output>
      <ol>{events.map(({ offset, data }) => <li key={offset}>{offset} {JSON.stringify(data)}</li>)}</ol>
    </section>
  );
}
