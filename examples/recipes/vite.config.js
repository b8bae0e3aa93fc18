import { fileURLToPath } from 'node:url';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import vue from '@vitejs/plugin-vue';
import { defineConfig } from 'vite';

const target = process.env.SOCKBRIDGE ?? 'http://127.0.0.1:8082';
const inCheckout = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  // React needs no plugin. @vitejs/plugin-react adds Fast Refresh.
  plugins: [vue(), svelte({ configFile: false })],
  // So the page and the WebSocket have the same origin, also for `vite preview`.
  server: { proxy: { '/ws': { target, ws: true }, '/stream': { target }, '/origin': { target } } },
  build: { outDir: inCheckout('build/recipes'), emptyOutDir: true },
  // The client of this checkout. Elsewhere: npm install sockbridge, without an alias.
  resolve: { alias: { sockbridge: inCheckout('twistedsock/static/sockbridge.js') } },
});
