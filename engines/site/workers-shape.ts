/** `workers`: what the worker processes of the machine may take. */
import { cappedWorkers } from '../../schema/domain/configuration.ts';
import { size, strict, whole } from './shape-leaves.ts';

/** Less, and a worker would be started anew all day long. */
const caps = strict('a mapping with memory, cpus and nice', {
  memory: size(256 * 2 ** 20, 2 ** 40, '256MiB to 1TiB').optional(),
  cpus: whole(1, 1024).optional(),
  nice: whole(0, 19).optional(),
});

export const workers = strict(`a mapping with ${cappedWorkers.join(', ')}`, {
  host: caps.optional(),
  proxy: caps.optional(),
  repository: caps.optional(),
});
