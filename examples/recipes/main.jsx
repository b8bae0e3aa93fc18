// One client for the page, and a panel of each framework.

import { createRoot } from 'react-dom/client';
import { connect } from 'sockbridge';
import { mount } from 'svelte';
import { createApp } from 'vue';

import { ClientContext } from './react-hooks.js';
import { ReactPanel } from './ReactPanel.jsx';
import SveltePanel from './SveltePanel.svelte';
import { CLIENT } from './vue-composables.js';
import VuePanel from './VuePanel.vue';

const client = connect(); // /ws on the host of the page, which Vite passes on to the server
const element = (id) => document.getElementById(id);

createRoot(element('react')).render(<ClientContext value={client}><ReactPanel /></ClientContext>);
createApp(VuePanel).provide(CLIENT, client).mount(element('vue'));
mount(SveltePanel, { target: element('svelte'), props: { client } });
