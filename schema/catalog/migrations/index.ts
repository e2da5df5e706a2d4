import { migration as m0001 } from './0001-create-machines.ts';
import { migration as m0002 } from './0002-create-hosts.ts';
import { migration as m0003 } from './0003-create-proxies.ts';
import { migration as m0004 } from './0004-create-repositories.ts';
import { migration as m0005 } from './0005-create-jobs.ts';
import { migration as m0006 } from './0006-create-job-vms.ts';
import { migration as m0007 } from './0007-create-virtual-machines.ts';
import { migration as m0008 } from './0008-create-sessions.ts';
import { migration as m0009 } from './0009-create-session-vms.ts';
import { migration as m0010 } from './0010-create-session-disks.ts';
import { migration as m0011 } from './0011-create-restore-points.ts';
import { migration as m0012 } from './0012-create-leases.ts';
import { migration as m0013 } from './0013-create-resource-requests.ts';
import { migration as m0014 } from './0014-create-session-events.ts';
import { migration as m0015 } from './0015-create-scheduler.ts';
import { migration as m0016 } from './0016-add-restore-point-flags.ts';
import { migration as m0017 } from './0017-add-session-repository.ts';
import { migration as m0018 } from './0018-add-restore-point-removal.ts';
import { migration as m0019 } from './0019-add-repository-figures.ts';
import { migration as m0020 } from './0020-create-repository-days.ts';
import { migration as m0021 } from './0021-create-maintenance-outcomes.ts';
import { migration as m0022 } from './0022-create-run-owners.ts';
import { migration as m0023 } from './0023-create-absent-vms.ts';
import { migration as m0024 } from './0024-add-restore-point-said.ts';
import { migration as m0025 } from './0025-add-disk-audit.ts';
import { migration as m0026 } from './0026-add-disk-stages.ts';
import { migration as m0027 } from './0027-add-machine-config.ts';
import type { Migration } from './migration.ts';

/** Every migration in order. Append only: one that was released never changes. */
export const migrations: readonly Migration[] = [
  m0001,
  m0002,
  m0003,
  m0004,
  m0005,
  m0006,
  m0007,
  m0008,
  m0009,
  m0010,
  m0011,
  m0012,
  m0013,
  m0014,
  m0015,
  m0016,
  m0017,
  m0018,
  m0019,
  m0020,
  m0021,
  m0022,
  m0023,
  m0024,
  m0025,
  m0026,
  m0027,
];
