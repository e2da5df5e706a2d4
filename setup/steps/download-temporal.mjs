/** download-temporal.mjs <version> <folder>: lets Temporal's own SDK fetch its command line into the folder. Node 24. */
import { TestWorkflowEnvironment } from '@temporalio/testing';

const [version, downloadDir] = process.argv.slice(2);
const executable = { type: 'cached-download', version, downloadDir };
const environment = await TestWorkflowEnvironment.createLocal({ server: { executable } });
await environment.teardown();
