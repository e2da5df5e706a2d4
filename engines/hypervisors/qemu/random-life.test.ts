/**
 * A VM's life at random: sessions that are sealed, taken back, left lying or left held, by a worker that is started anew
 * at any time, on a VM that is started, stopped and killed. Every session reads what the VM held at its instant, and it
 * reads only changes unless QEMU was killed since its base.
 */
import { afterEach, expect, it } from 'vitest';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { makeQemuWorld, type QemuWorld, runOf, type Session } from '../../../tests/fixtures/qemu-world.ts';

const STEPS = 30;
const { seed, next } = seeded();
let world: QemuWorld;
afterEach(() => world.close());

class Life {
  sealed: Session | null = null;
  isTracked = false;
  isOn = true;
  /** Of a session that nobody ended. */
  held: { run: number; by: 'vm' | 'daemon' } | null = null;
  runs = 0;

  async step(): Promise<string> {
    const steps = ['write', 'write', 'seal', 'seal', 'take back', 'leave', 'hold', 'worker', 'power', 'kill'] as const;
    const step = steps[next(steps.length)]!;
    if (step === 'write' && this.held?.by !== 'daemon') await world.writeAll();
    if (step === 'worker') world.restartWorker();
    if (step === 'seal') await this.seal();
    if (step === 'take back') await this.fail(true);
    if (step === 'leave') await this.fail(false);
    if (step === 'hold') await this.hold();
    if (step === 'power') await this.power();
    if (step === 'kill' && this.isOn) await this.kill();
    return step;
  }

  expectTracked({ checkpoint }: Pick<Session, 'checkpoint'>): void {
    const uses = checkpoint.disks.map(({ verdict }) => verdict.use);
    const wanted = this.isTracked ? 'changes' : 'compare';
    expect(uses).toEqual([wanted, wanted]);
  }

  async seal(): Promise<void> {
    const session = await world.session((this.runs += 1), this.sealed);
    this.expectTracked(session);
    this.held = null;
    this.sealed = session;
    this.isTracked = true;
    if (this.isOn) await world.expectOnly(session);
  }

  async fail(taken: boolean): Promise<void> {
    this.expectTracked(await world.session((this.runs += 1), this.sealed, { seal: false }));
    this.held = null;
    if (taken) await world.provider.discardReferencePoint(runOf(this.runs));
  }

  async hold(): Promise<void> {
    const checkpoint = await world.create(world.spec((this.runs += 1), this.sealed?.point ?? null));
    this.expectTracked({ checkpoint });
    this.held = { run: this.runs, by: this.isOn ? 'vm' : 'daemon' };
  }

  /** What holds the images of a VM that is off has to go before it can start. */
  async power(): Promise<void> {
    if (this.held?.by === 'daemon') await this.undo(this.held.run);
    if (this.isOn) await world.quit();
    else await world.start();
    this.isOn = !this.isOn;
  }

  async kill(): Promise<void> {
    await world.kill();
    await world.start();
    this.isTracked = false;
  }

  async undo(run: number): Promise<void> {
    await world.provider.releaseCheckpoint(runOf(run)).catch((error: unknown) => {
      if (errorCodeOf(error) !== 'CHECKPOINT_LOST') throw error;
    });
    await world.provider.discardReferencePoint(runOf(run));
    this.held = null;
  }
}

it(`reads the truth whatever happened (seed ${seed})`, async () => {
  world = await makeQemuWorld();
  const life = new Life();
  const told: string[] = [];
  try {
    for (let step = 0; step < STEPS; step += 1) told.push(await life.step());
    await life.seal();
  } catch (error) {
    throw new Error(`seed ${seed}, after ${told.join(', ')}: ${String(error)}`, { cause: error });
  }
}, 180_000);
