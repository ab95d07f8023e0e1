import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

const forbid = (patterns, message) => ['error', { patterns: patterns.map((regex) => ({ regex, message })) }];

export default tseslint.config(
  // fetch-jellyroller.mjs runs alone in the image build, as plain JavaScript; `npm run test:image` runs it.
  { ignores: ['dist/', 'node_modules/', 'coverage/', '.stand/', 'agent/fetch-jellyroller.mjs'] },
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['eslint.config.js'] } } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // `void promise` says that a promise is not awaited on purpose.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-console': 'error',
    },
  },
  {
    files: ['agent/**/*.ts'],
    rules: {
      'no-restricted-imports': forbid(
        ['^(\\.\\./)+(components|scripts|tests)/', '^@pulumi/'],
        'the agent is deployed without the infrastructure: it imports nothing of it',
      ),
      'no-restricted-globals': ['error', { name: 'process', message: 'only main.ts touches the process' }],
    },
  },
  {
    // Decisions and orchestration: the outside comes through ports.ts, so that a test can stop the world between two calls.
    files: ['agent/*.ts', 'agent/commands/*.ts'],
    ignores: ['agent/main.ts', 'agent/wire.ts'],
    rules: {
      'no-restricted-imports': forbid(
        [
          '/adapters/',
          '^node:(fs|child_process|net|http|https|sqlite|zlib|worker_threads)(/|$)',
          '^@azure/',
          '^@pulumi/',
          '^(\\.\\./)+(components|scripts|tests)/',
        ],
        'domain code reaches the outside through ports.ts',
      ),
    },
  },
  { files: ['agent/main.ts', 'agent/adapters/**/*.ts'], rules: { 'no-restricted-globals': 'off' } },
  {
    files: ['components/**/*.ts', 'index.ts'],
    rules: {
      'no-restricted-imports': forbid(
        ['agent/(?!contract\\.ts$)'],
        'agent/contract.ts is the only file of the agent that the infrastructure may import',
      ),
    },
  },
  {
    // Tests take answers of unknown shape apart and let them fail there; floating promises stay forbidden.
    files: ['tests/**/*.ts', 'bench/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-base-to-string': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-meaningless-void-operator': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      '@typescript-eslint/no-redundant-type-constituents': 'off',
      '@typescript-eslint/require-await': 'off',
    },
  },
  {
    files: ['**/*.js'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { process: 'readonly' } },
  },
);
