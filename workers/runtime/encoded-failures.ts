/** Failures whose messages and stacks go through the payload codec, too: part of the workflow bundle where there is one. */
import { DefaultFailureConverter } from '@temporalio/common';

export const failureConverter = new DefaultFailureConverter({ encodeCommonAttributes: true });
