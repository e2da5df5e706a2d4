/** Suites of restore points once more, over an encrypted repository. */
import { KEY_FILE } from '../../../tests/fixtures/repository/keys.ts';
import { testDefaults } from '../../../tests/fixtures/repository/test-repository.ts';

testDefaults.secret = KEY_FILE;
await import('./assigning.test.ts');
await import('./healing.test.ts');
