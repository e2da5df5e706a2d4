/**
 * The house's layer rules: who may import whom (docs/architecture.md has the table with the reasons).
 * `npm run layers` checks them; `npm test` runs it.
 */
const tests = '(\\.test\\.ts$|^tests/|^bench/)';
const engine = (name, also = []) => ({
  name: `engine-${name}`,
  comment: 'an engine imports schema/domain, its own format and the leaves; never another engine',
  severity: 'error',
  from: { path: `^engines/${name}/`, pathNot: tests },
  to: {
    path: '^(engines|schema|activities|workflows|workers|cli)/',
    pathNot: [`^engines/${name}/`, '^schema/domain/', '^engines/(nbd|qmp)/', ...also],
  },
});

/** Floors of the repository: each may use those before it. */
const floors = ['storage', 'pack', 'index', 'restore-point', 'maintenance'];

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: { pathNot: tests }, to: { circular: true } },
    {
      name: 'domain-is-a-leaf',
      severity: 'error',
      from: { path: '^schema/domain/', pathNot: tests },
      to: { pathNot: '^schema/domain/' },
    },
    ...['catalog', 'wire', 'repository'].map((name) => ({
      name: `schema-${name}`,
      comment: 'a shape knows the domain only',
      severity: 'error',
      from: { path: `^schema/${name}/`, pathNot: tests },
      to: {
        path: '^(engines|schema|activities|workflows|workers|cli)/',
        pathNot: [`^schema/${name}/`, '^schema/domain/'],
      },
    })),
    {
      name: 'kysely-only-in-catalog',
      severity: 'error',
      from: { path: '^(schema|engines|workflows|workers|cli)/', pathNot: ['^schema/catalog/', tests] },
      to: { path: '^node_modules/(kysely|mysql2)/' },
    },
    engine('hypervisors'),
    engine('guest'),
    engine('mover', ['^schema/wire/']),
    engine('repository', ['^schema/repository/']),
    engine('restore'),
    engine('security'),
    engine('stack'),
    engine('nbd'),
    engine('qmp'),
    engine('scheduler'),
    engine('site'),
    {
      name: 'pure-engines',
      comment: 'scheduler and site do no I/O',
      severity: 'error',
      from: { path: '^engines/(scheduler|site)/', pathNot: tests },
      to: { dependencyTypes: ['core'] },
    },
    ...floors.slice(0, -1).map((name, at) => ({
      name: `repository-${name}`,
      comment: 'floors of the repository import downwards only',
      severity: 'error',
      from: { path: `^engines/repository/${name}/`, pathNot: tests },
      to: { path: `^engines/repository/(${[...floors.slice(at + 1), '[^/]+\\.ts$'].join('|')})` },
    })),
    {
      name: 'repository-files-only-in-storage',
      comment: 'what a repository does to disk goes through Staging and Store; the index keeps a cache of its own',
      severity: 'error',
      from: { path: '^engines/repository/', pathNot: ['^engines/repository/(storage|index)/', tests] },
      to: { path: '^(node:)?(fs|fs/promises)$' },
    },
    {
      name: 'engines-without-temporal',
      severity: 'error',
      from: { path: '^engines/', pathNot: tests },
      to: { path: '^node_modules/@temporalio/' },
    },
    {
      name: 'workflows-are-deterministic',
      comment: 'schema/domain, @temporalio/workflow and types of activities only',
      severity: 'error',
      from: { path: '^workflows/', pathNot: [tests, '^workflows/histories/'] },
      to: {
        pathNot: ['^workflows/', '^schema/domain/', '^activities/', '^node_modules/@temporalio/(workflow|common)/'],
      },
    },
    {
      name: 'workflows-see-types-of-activities',
      severity: 'error',
      from: { path: '^workflows/', pathNot: tests },
      to: { path: '^activities/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'activities-below-workflows',
      severity: 'error',
      from: { path: '^activities/', pathNot: tests },
      to: { path: '^(workflows|workers|cli)/' },
    },
    {
      name: 'catalog-only-in-control-activities',
      severity: 'error',
      from: { path: '^activities/', pathNot: ['^activities/(session|resources)/', tests] },
      to: { path: '^schema/catalog/' },
    },
    {
      name: 'production-code-without-tests',
      severity: 'error',
      from: { pathNot: tests },
      to: { path: ['^tests/', '\\.test\\.ts$'] },
    },
    {
      name: 'contract-suite-only-in-tests',
      severity: 'error',
      from: { pathNot: [tests, '^engines/(hypervisors|repository/storage)/contract\\.ts$'] },
      to: { path: '^node_modules/vitest/' },
    },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true, pathNot: '^node:' } },
  ],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^node_modules/.*/node_modules' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.mjs', '.js', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
};
