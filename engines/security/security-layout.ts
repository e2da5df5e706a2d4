/**
 * Where a machine's certificates lie, below `config/security` of the state folder; 0700, every file 0600.
 *
 *   authority.pem, revocations.pem   whom this machine trusts, and whom no longer
 *   machine.pem                      who it is: key and certificate, in one file, so that they always fit together
 *   enrolment.json                   where it enrolled and renews; not on the machine of the authority
 *   authority/                       only on the machine of the stack:
 *     authority.key                  signs certificates and the revocation list
 *     site                           id of the site
 *     tokens/, issued/, revoked/     a file each: tokens (hashed), certificates, revoked serial numbers; in revoked/ also
 *                                    the number of the newest list
 */
import path from 'node:path';
import type { OwnPki, SecurityDescription, SecurityFiles } from '../../schema/domain/security.ts';
import type { SiteId } from '../../schema/domain/ids.ts';

export type SecurityLayout = SecurityFiles & {
  folder: string;
  enrolment: string;
  authorityFolder: string;
  authorityKey: string;
  siteFile: string;
  tokensFolder: string;
  issuedFolder: string;
  revokedFolder: string;
};

export function securityLayout(configFolder: string): SecurityLayout {
  const at = (...names: string[]): string => path.join(configFolder, 'security', ...names);
  return {
    folder: at(),
    authority: at('authority.pem'),
    revocations: at('revocations.pem'),
    certificate: at('machine.pem'),
    key: at('machine.pem'),
    enrolment: at('enrolment.json'),
    authorityFolder: at('authority'),
    authorityKey: at('authority', 'authority.key'),
    siteFile: at('authority', 'site'),
    tokensFolder: at('authority', 'tokens'),
    issuedFolder: at('authority', 'issued'),
    revokedFolder: at('authority', 'revoked'),
  };
}

/** The files of the site's own authority, or those of the operator's. */
export function describeSecurity(site: SiteId, layout: SecurityLayout, own: OwnPki | undefined): SecurityDescription {
  const { authority, certificate, key, revocations = null } = own ?? layout;
  const files = { authority, certificate, key, revocations };
  return { site, files, machines: own?.machines ?? null };
}
