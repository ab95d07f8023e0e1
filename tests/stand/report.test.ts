import { Report } from '../../scripts/stand/report.ts';
import { SPIKE, SPIKE_TITLE } from '../../scripts/stand/spike.ts';

function reportOf(
  passed: readonly string[],
  failed: readonly string[] = [],
): { text: string; isGood: boolean } {
  let text = '';
  const report = new Report((part) => (text += part));
  report.demand(SPIKE_TITLE, Object.values(SPIKE));
  for (const claim of passed) report.check(claim, true, 'as it should be');
  for (const claim of failed) report.check(claim, false, 'something else');
  const isGood = report.finish();
  return { text, isGood };
}

test('every demand of the spike is a row of its own table, seen or not', () => {
  const { text, isGood } = reportOf([...Object.values(SPIKE), 'one of ours']);
  expect(isGood).toBe(true);
  const [ours = '', theirs = ''] = text.slice(text.indexOf('CRITERION')).split(SPIKE_TITLE);
  expect(ours).toContain('one of ours');
  for (const claim of Object.values(SPIKE)) {
    expect(ours).not.toContain(claim);
    expect(theirs).toContain(claim);
  }
  expect(theirs).toContain(`${String(Object.keys(SPIKE).length + 1)} passed, 0 failed`);
});

test('a demand that was never looked at has failed', () => {
  const { text, isGood } = reportOf(Object.values(SPIKE).filter((claim) => claim !== SPIKE.roundTrip));
  expect(isGood).toBe(false);
  expect(text).toMatch(new RegExp(`^FAILED +${SPIKE.roundTrip} +the walk did not come to it$`, 'm'));
});

test('one look that fails is enough', () => {
  const { text, isGood } = reportOf(Object.values(SPIKE), [SPIKE.expectedData]);
  expect(isGood).toBe(false);
  expect(text).toMatch(new RegExp(`^FAILED +${SPIKE.expectedData} +something else$`, 'm'));
});
