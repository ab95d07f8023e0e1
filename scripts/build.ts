import { rm } from 'node:fs/promises';
import { bundleAgent } from './bundle-agent.ts';

await rm('dist', { recursive: true, force: true });
const { file, sizeBytes } = await bundleAgent({ outFile: 'dist/agent.mjs' });
process.stdout.write(`${file}: ${(sizeBytes / 1024 / 1024).toFixed(2)} MiB\n`);
