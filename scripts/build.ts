import { bundleAgent } from './bundle-agent.ts';

const { file, sizeBytes } = await bundleAgent({ outFile: 'dist/agent.mjs' });
process.stdout.write(`${file}: ${(sizeBytes / 1024 / 1024).toFixed(2)} MiB\n`);
