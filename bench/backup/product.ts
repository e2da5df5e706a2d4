/** The whole product: a stack of its own, one simulated VM that holds the image, sessions by the command line. */
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import type { temporal } from '@temporalio/proto';
import { actOnSimulated, type GuestLine } from '../../engines/hypervisors/simulated/model.ts';
import { stackLayout } from '../../engines/stack/layout.ts';
import { vmId } from '../../schema/domain/ids.ts';
import { startEmptyWorld, type World } from '../../tests/fixtures/world/world.ts';
import type { SessionReport } from '../../tests/fixtures/world/report.ts';
import { type Image } from '../repository/image.ts';
import { type Taken, cpuSecondsOf } from '../repository/measure.ts';

const VM = '6a1f3b52-0c7e-4d38-9a41-5f2e8c7d1b90';
/** The command line waits for the end of a session; a simulated VM cannot be frozen, which is a warning. */
const ENDED_WELL = [0, 3];
export type History = temporal.api.history.v1.IHistory;
type Timed = SessionReport & { session: { startedAt: string; endedAt: string; workflowId: string } | null };

export class Product {
  readonly #world: World;
  readonly #image: Image;
  #round = 0;
  #restored = 0;
  #newest = '';
  #workflows: string[] = [];

  private constructor(world: World, image: Image) {
    this.#world = world;
    this.#image = image;
  }

  static start = async (image: Image): Promise<Product> => new Product(await startEmptyWorld(), image);

  get folder(): string {
    return path.join(this.#world.root, `r${this.#round}`);
  }

  /** The next sessions go to a repository that is new. */
  async freshRepository(): Promise<void> {
    this.#round += 1;
    const applied = await this.#world.apply(siteOf(this.#world, this.#image, this.#round));
    if (applied.code !== 0) throw new Error(applied.stdout + applied.stderr);
  }

  async tell(lines: readonly GuestLine[]): Promise<void> {
    const hostFolder = stackLayout(this.#world.state).hostFolder('sim');
    for (const line of lines) await actOnSimulated(hostFolder, vmId(VM), line);
  }

  /** From the session's start to its end, as it says itself; `mode`: how the disk must have been read. */
  async session(mode: 'full' | 'cbt' | 'comparison'): Promise<Taken> {
    const before = await this.#cpuSeconds();
    const report = await this.#world.json<Timed>(['job', 'run', `j${this.#round}`], ENDED_WELL);
    const cpuSeconds = (await this.#cpuSeconds()) - before;
    const { vms, startedAt, endedAt, workflowId } = report.session!;
    const disk = vms[0]!.disks[0]!;
    if (disk.mode !== mode) throw new Error(`the disk was read as ${disk.mode}: ${JSON.stringify(disk.reason)}`);
    this.#newest = vms[0]!.restorePointId!;
    this.#workflows = [workflowId, vms[0]!.workflowId];
    return { seconds: (Date.parse(endedAt) - Date.parse(startedAt)) / 1000, cpuSeconds };
  }

  /** Of the last session and of its VM, of Temporal. */
  async histories(): Promise<History[]> {
    const { temporal } = await this.#world.status();
    const connection = await Connection.connect({ address: temporal.address });
    try {
      const { workflow } = new Client({ connection, namespace: temporal.namespace });
      return await Promise.all(this.#workflows.map((id) => workflow.getHandle(id).fetchHistory()));
    } finally {
      await connection.close();
    }
  }

  /** The newest restore point, whole; the time of the command, as that of the others. Path of the disk. */
  async restore(): Promise<{ file: string; taken: Taken }> {
    const [before, startMs] = [await this.#cpuSeconds(), performance.now()];
    const [file] = Object.values(await this.#world.restore(this.#newest, `v${(this.#restored += 1)}`));
    const seconds = (performance.now() - startMs) / 1000;
    return { file: file!, taken: { seconds, cpuSeconds: (await this.#cpuSeconds()) - before } };
  }

  /** Processes whose memory is looked at, by name. */
  async pids(): Promise<Map<string, number>> {
    const { children } = await this.#world.status();
    return new Map(children.flatMap(({ name, pid }) => (pid === null ? [] : [[name, pid]])));
  }

  async #cpuSeconds(): Promise<number> {
    return [...(await this.pids()).values()].reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
  }

  close = (): Promise<void> => this.#world.close();
}

/** Everything as a site gets it by default. */
const siteOf = ({ root, restores }: World, { file, sizeBytes }: Image, rounds: number): string => {
  const all = Array.from({ length: rounds }, (_, i) => i + 1);
  return `site: b
machine: m1
hosts:
  - name: sim
    provider: simulated
    vms:
      - name: v
        uuid: ${VM}
        disks: [{ name: d0, size: ${sizeBytes}, image: ${file} }]
proxies: [{ name: p1, restoreFolders: [${restores}] }]
repositories:
${all.map((i) => `  - { name: r${i}, folder: ${path.join(root, `r${i}`)}, maintenance: false }`).join('\n')}
jobs:
${all.map((i) => `  - { name: j${i}, vms: [v], repository: r${i} }`).join('\n')}
`;
};
