/**
 * The closing line that any CI can read, and the rule behind it: a run without tests, or with a skipped one on CI, has
 * failed. A test that is skipped where it matters proves nothing (style.md, part 3 d).
 */
export default class SummaryReporter {
  #error;

  onRunComplete(_contexts, results) {
    const {
      numPassedTests,
      numFailedTests,
      numPendingTests,
      numTodoTests,
      numTotalTests,
      numRuntimeErrorTestSuites,
    } = results;
    const skipped = numPendingTests + numTodoTests;
    const failed = numFailedTests + numRuntimeErrorTestSuites;
    process.stdout.write(
      `\n${numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`,
    );
    if (numTotalTests === 0) this.#error = new Error('no test was run');
    else if (skipped > 0 && process.env.CI)
      this.#error = new Error(`${skipped} tests were skipped; on CI that is a failure`);
  }

  getLastError() {
    return this.#error;
  }
}
