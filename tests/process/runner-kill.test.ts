import { expectWhole, KILL_STEPS, killedAt } from './runner-kill.ts';

describe('kill -9 of the runner', () => {
  // The others are in runner.long.test.ts.
  test.concurrent.each(KILL_STEPS.filter(({ isQuick }) => isQuick))(
    '$name: the next start goes on, nothing is made or stored twice',
    async (step) => {
      const world = await killedAt(step);
      const { code, stdout } = await world.once();
      expect({ code, stdout }).toMatchObject({ code: 0 });
      await expectWhole(world);
    },
  );
});
