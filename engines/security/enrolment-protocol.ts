/** What machines ask the control worker, over HTTPS with TLS 1.3. JSON both ways. */
import { z } from 'zod';

/** With a token and no certificate. */
export const ENROL_PATH = '/v1/enrol';
/** With a certificate. */
export const RENEW_PATH = '/v1/renew';
export const STATE_PATH = '/v1/state';

const request = z.string().max(8192);
export const enrolRequest = z.strictObject({ token: z.string().max(256), request });
export const renewRequest = z.strictObject({ request });

/** `configuration`: the machine's machine.json; null: nothing was applied for it yet. */
export type MachineState = { revocations: string; configuration: string | null };
export type ErrorAnswer = { error: { code: string; message: string } };
