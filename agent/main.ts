// Placeholder until the agent's own entry lands on the main branch; take theirs when this branch is merged.
process.stderr.write('this image was built without the agent\n');
process.exitCode = 1;
